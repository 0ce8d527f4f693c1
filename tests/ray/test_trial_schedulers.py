"""Trial schedulers that have trials wait for each other: nobody waits for ever, also after a kill."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.ray.conftest import Search, wait_until

pytestmark = pytest.mark.ray

STEPS = 6

TRAINABLE = """
import json, tempfile, time
from pathlib import Path
from ray import tune

def train(config):
    checkpoint = tune.get_checkpoint()
    step = json.loads(Path(checkpoint.path, "step.json").read_text()) if checkpoint else 0
    if config["gate"] and checkpoint and "clone-" in checkpoint.path:
        Path(config["gate"] + ".waits").touch()
        while not Path(config["gate"]).exists():
            time.sleep(0.05)
    for step in range(step, 6):
        if config["failing"] and tune.get_context().get_trial_id().endswith("_00002") and step == 3:
            raise RuntimeError("the third fails")
        time.sleep(config["seconds"])
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step.json").write_text(json.dumps(step + 1))
            tune.report({"score": config["lr"] * step}, checkpoint=tune.Checkpoint.from_directory(folder))
"""

POPULATION: dict[str, Any] = {
    "trial_scheduler": {
        "name": "pbt",
        "perturbation_interval": 2,
        "synch": True,
        "quantile_fraction": 0.5,
        "hyperparam_mutations": {"lr": {"uniform": [1, 2]}},
    },
    "stop": {"training_iteration": STEPS},
    "checkpoint": {"keep": 1},
}


def _write(search: Search, *, failing: bool = False, seconds: float = 0.0, gate: str = "", **experiment: Any) -> None:
    space = {"lr": {"uniform": [1, 2]}, "failing": failing, "seconds": seconds, "gate": gate}
    search.write(TRAINABLE, {"space": space, "num_samples": 4, "seed": 3} | experiment)


def test_a_population_goes_on_without_a_member_that_failed(search: Search) -> None:
    """The others wait for its report; and what they take over of each other outlives a ``keep`` of 1."""
    _write(search, failing=True, **POPULATION)
    search.run()
    ended = [(row["status"], row["iterations"]) for row in search.table()]
    whole = ("TERMINATED", str(STEPS))
    assert ended == [whole, whole, ("ERROR", "3"), whole]
    assert any(search.directory.glob("storage/pbt_policy_*.txt")), "somebody took over another's checkpoint"
    exploits = [json.loads(line) for line in (search.directory / "storage/pbt_global.txt").read_text().splitlines()]
    assert all(own == other and own % 2 == 0 for _, _, own, other, *_ in exploits), "they met at every second step"
    assert not list(search.directory.glob("storage/*/clone-*")), "cleared away at the end"


SLOW_SAVES = """
from ray.tune.trainable import FunctionTrainable

save = FunctionTrainable.save_checkpoint

def save_slowly(self, folder=""):
    time.sleep(0.1)
    return save(self, folder)

FunctionTrainable.save_checkpoint = save_slowly
"""


def test_a_member_that_is_replaced_while_it_saves_goes_on_to_the_end(search: Search) -> None:
    """The last member's report has it replaced: Ray would end it with its next checkpoint, as if all were well."""
    weak_last = {"lr": {"grid": [1.9, 1.8, 1.2, 1.1]}, "failing": False, "seconds": 0.0, "gate": ""}
    search.write(TRAINABLE + SLOW_SAVES, POPULATION | {"space": weak_last, "num_samples": 1})
    search.run()
    assert [(row["status"], row["iterations"]) for row in search.table()] == [("TERMINATED", str(STEPS))] * 4


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param(POPULATION, id="pbt"),
        pytest.param({"trial_scheduler": {"name": "hyperband", "max_t": STEPS}}, id="hyperband"),
    ],
)
def test_trials_that_wait_for_each_other_are_resumed(search: Search, experiment: dict[str, Any]) -> None:
    _write(search, seconds=0.1, **experiment)
    process = search.start("run", "search.json")
    wait_until(lambda: search.reported() >= 10, what="the second round")
    search.kill_driver(process, signal.SIGKILL)
    search.call("resume")
    assert [row["status"] for row in search.table()] == ["TERMINATED"] * 4
    history = [(row["trial_id"], row["training_iteration"]) for row in search.table("history")]
    assert len(history) == len(set(history))
    assert str(STEPS) in {row["iterations"] for row in search.table()}
    if experiment is POPULATION:
        assert len(history) == 4 * STEPS, "nobody ran ahead of the others, and no clone skipped an iteration"


def test_what_a_member_took_over_outlives_a_kill_before_its_next_result(search: Search) -> None:
    """The last result that the state knows of it is then the other's, and its own checkpoints are older."""
    gate = search.folder / "gate"
    _write(search, gate=str(gate), **POPULATION)
    process = search.start("run", "search.json")
    waits = search.folder / "gate.waits"
    wait_until(waits.exists, what="a member that goes on from another's checkpoint")
    begin = waits.stat().st_mtime
    wait_until(lambda: (search.directory / "storage/state.zip").stat().st_mtime > begin, what="a state that knows it")
    search.kill_driver(process, signal.SIGKILL)
    gate.touch()
    search.call("resume")
    assert [(row["status"], row["iterations"]) for row in search.table()] == [("TERMINATED", str(STEPS))] * 4
    assert len(search.table("history")) == 4 * STEPS


@pytest.mark.parametrize(("iteration", "waits"), [(1, False), (2, True), (3, True)])
def test_a_result_that_the_state_missed_may_have_been_where_members_meet(iteration: int, waits: bool) -> None:
    from ray.tune.experiment import Trial
    from ray.tune.schedulers.pbt import _PBTTrialState

    from hpc_tune.runtime.trial_schedulers import Population

    population = Population(
        metric="score",
        mode="max",
        time_attr="training_iteration",
        perturbation_interval=2,
        hyperparam_mutations={"lr": [1, 2]},
        synch=True,
    )
    trial = Trial("train", stub=True)
    population._trial_state[trial] = _PBTTrialState(trial)
    assert population.has_missed(trial, {"training_iteration": iteration, "score": 5.0}) is waits
    assert population.last_scores([trial]) == ([5.0] if waits else [])
    assert not population.has_missed(trial, {"training_iteration": iteration}), "nothing to compare"


@pytest.mark.parametrize(("begun_at", "goes_on_from"), [(3, "checkpoint_000006"), (5, "clone-x")])
def test_a_checkpoint_on_its_way_may_be_newer_than_one_taken_over(
    tmp_path: Path, begun_at: int, goes_on_from: str
) -> None:
    """The state was saved between a result and its checkpoint; the exploit had been before that result, or after."""
    from ray.train._internal.checkpoint_manager import _CheckpointManager, _TrainingResult
    from ray.tune import Checkpoint, CheckpointConfig

    from hpc_tune.runtime.catch_up import catch_up

    for name in ("clone-x", "checkpoint_000006"):
        (tmp_path / name).mkdir()
    last = {
        "training_iteration": 6, "time_total_s": 6.0, "checkpoint_dir_name": "checkpoint_000006",
        "iterations_since_restore": 6 - begun_at, "time_since_restore": 6.0 - begun_at,
    }  # fmt: skip
    (tmp_path / "result.json").write_text(json.dumps(last) + "\n")
    manager = _CheckpointManager(CheckpointConfig(num_to_keep=2))
    taken_over = {"training_iteration": 3, "time_total_s": 3.0}
    manager._latest_checkpoint_result = _TrainingResult(Checkpoint(str(tmp_path / "clone-x")), taken_over)
    trial: Any = SimpleNamespace(
        trial_id="t_0",
        storage=SimpleNamespace(trial_fs_path=str(tmp_path), current_checkpoint_index=-1),
        run_metadata=SimpleNamespace(checkpoint_manager=manager, last_result=last),
        on_checkpoint=manager.register_checkpoint,
    )
    assert not catch_up(trial, {"t_0": 1}), "all results were known"
    newest = manager.latest_checkpoint_result
    assert newest is not None
    assert Path(newest.checkpoint.path).name == goes_on_from
