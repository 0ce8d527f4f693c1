"""Checkpoints scored on held-out data: whose function, which arguments, and what is said when it does not work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import hpc_tune
from hpc_tune.cli import cli
from hpc_tune.errors import ExperimentError, RunError, UsageError
from hpc_tune.followup import FollowUp
from hpc_tune.operations.followup_jobs import carry_out
from hpc_tune.operations.report import report
from hpc_tune.operations.tasks import evaluate_task
from hpc_tune.run import RunDir
from hpc_tune.slurm.client import Slurm
from tests.unit.made_results import MadeTrials, Page

TRAIN = """\
import os
from pathlib import Path

def train(config): ...
def load_data(): return [1, 2, 3]
def evaluate(config, checkpoint):
    assert isinstance(checkpoint, Path)
    Path("beside.txt").write_text("scoring")
    return {"read": (checkpoint / "state.pt").read_text(), "lr": config["lr"], "deep": {"loss": 0.25}}
def with_data(config, checkpoint, data): return {"items": len(data)}
def maybe_data(config, checkpoint, data=None): return {"items": data and len(data)}
def broken(config, checkpoint):
    raise ValueError("the labels\\nhave another length")
def leaves(config, checkpoint): raise SystemExit("away")
def number(config, checkpoint): return 0.5
def odd(config, checkpoint): return {"model": object()}
def too_few(config): ...
"""


@pytest.fixture
def run(project: Any, runs_dir: Path) -> RunDir:
    project.write("train.py", TRAIN)
    created: RunDir = project.create_run(
        runs_dir, space={"lr": 0.1}, data="train.py:load_data", evaluate="train.py:evaluate"
    )
    trials = MadeTrials(created)
    trials.add("t_0", [0.1, 0.3], config={"lr": 0.5}, checkpoints={2: b"weak"})
    trials.add("t_1", [0.4, 0.9], config={"lr": 0.1}, checkpoints={2: b"strong"})
    trials.add("t_2", [0.2])
    project.write("train.py", "def train(config): ...\n")  # edited since
    return created


@pytest.fixture
def call(run: RunDir, runs_dir: Path) -> Callable[..., Result]:
    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--runs-dir", str(runs_dir)], prog_name="hpc-tune")

    return invoke


def here(run: RunDir, **options: Any) -> Any:
    return carry_out(evaluate_task(run, **options), here=True, slurm=Slurm())


def test_the_best_checkpoint_is_scored_by_the_code_of_the_run(run: RunDir, call: Callable[..., Result]) -> None:
    said = call("evaluate", "--here").output
    assert "trial t_1 of search-" in said
    assert "read = strong" in said
    assert "deep.loss = 0.25" in said
    (followup,) = FollowUp.of_run(run.path)
    assert (followup.path / "beside.txt").exists(), "what the function writes lies beside its result"
    kept = json.loads(followup.outcome_file.read_text())
    assert (kept["ok"], kept["result"]["metrics"]["lr"], kept["result"]["checkpoint_iteration"]) == (True, 0.1, 2)
    status = call("status").output
    assert "follow-up 001-evaluate: done after 0.0 s: read strong, lr 0.1, deep.loss 0.25 (trial t_1)" in status
    (shown,) = json.loads(call("status", "--json").output)["followups"]
    assert (shown["state"], shown["result"]["trial"]) == ("done", "t_1")
    text = Page(report([run]).file).text
    assert "On held-out data" in text
    assert '<data value="0.25">' in text


def test_another_trial_can_be_chosen(run: RunDir, call: Callable[..., Result]) -> None:
    said = json.loads(call("evaluate", "--here", "--trial", "0", "--json").output)
    assert (said["result"]["trial"], said["result"]["metrics"]["read"]) == ("t_0", "weak")
    assert call("evaluate", "--here", "--trial", "7").exit_code == 2
    failed = call("evaluate", "--here", "--trial", "t_2")
    assert failed.exit_code == 1
    assert "trial t_2 of" in failed.output
    assert "has left no checkpoint" in failed.output


@pytest.mark.parametrize(
    ("function", "metrics"), [("with_data", {"items": 3}), ("maybe_data", {"items": 3})], ids=["needs", "takes"]
)
def test_the_data_come_as_third_argument(run: RunDir, function: str, metrics: dict[str, Any]) -> None:
    assert here(run, function=f"train.py:{function}").result["metrics"] == metrics


@pytest.mark.parametrize(
    ("function", "reason", "hint"),
    [
        ("broken", "train.py, line 13: ValueError: have another length", "error.txt"),
        ("leaves", "train.py, line 14: SystemExit: away", "error.txt"),
        ("number", "train.py:number returned float, not a dict of metrics", 'return for example {"accuracy": 0.93}'),
        ("odd", "train.py:odd returned what cannot be kept", "return numbers and texts"),
        ("too_few", "train.py:too_few takes other arguments", "evaluate(config, checkpoint)"),
    ],
)
def test_what_goes_wrong_is_said_in_a_line(run: RunDir, function: str, reason: str, hint: str) -> None:
    found = here(run, function=f"train.py:{function}")
    assert found.state == "failed"
    assert reason in found.reason
    assert hint in (found.hint or "")
    assert (found.log is not None) == (hint == "error.txt")


def test_a_function_from_outside_is_kept_as_it_was(run: RunDir, project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.path)
    project.write(
        "score.py", "from train import load_data\ndef score(config, checkpoint): return {'n': len(load_data())}"
    )
    found = here(run, function="score.py:score")
    assert found.result["metrics"] == {"n": 3}, "its imports come from the run's code"
    assert (found.path / "function_score.py").exists()
    with pytest.raises(ExperimentError, match="defines no 'scor'; did you mean 'score'"):
        evaluate_task(run, function="score.py:scor")
    with pytest.raises(ExperimentError, match="there is no file"):
        evaluate_task(run, function="other.py:score")


def test_an_experiment_without_a_function_says_how_to_name_one(project: Any, runs_dir: Path) -> None:
    with pytest.raises(RunError, match="names no function that scores") as caught:
        evaluate_task(project.create_run(runs_dir))
    assert "--function FILE.py:NAME" in str(caught.value.hint)


def test_without_slurm_it_is_a_process_of_its_own(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slurm, "is_installed", False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    found = hpc_tune.evaluate(run)
    assert (found.executor, found.state, found.result["metrics"]["read"]) == ("local", "done", "strong")
    with pytest.raises(UsageError, match="runs on this machine"):
        hpc_tune.evaluate(run, partition="gpu")
    assert len(FollowUp.of_run(run.path)) == 1
