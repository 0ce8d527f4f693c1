"""The command line: its help, its exit codes, and what a user reads after a mistake."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from hpc_tune import __version__
from hpc_tune.attempt import Outcome
from hpc_tune.cli import cli
from hpc_tune.errors import HpcTuneError, RunBusy, RunError, RunNotFound, SlurmError, TrialsFailed, UsageError
from hpc_tune.experiment.capacity import Node
from hpc_tune.operations import local
from hpc_tune.operations.chosen import default_experiments
from hpc_tune.operations.local import Ended
from hpc_tune.run import RunDir

HPC_TUNE = Path(sys.executable).with_name("hpc-tune")


def visible(group: click.Group, *above: str) -> dict[str, click.Command]:
    """Return the commands that people type, those of groups under both words: ``site list``."""
    found: dict[str, click.Command] = {}
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            found |= visible(command, *above, name)
        elif not command.hidden:
            found[" ".join((*above, name))] = command
    return found


COMMANDS = visible(cli)


@pytest.fixture(autouse=True)
def here(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPC_TUNE_RUNS_DIR", raising=False)
    monkeypatch.chdir(project.path)


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        pytest.fail("a driver was started")

    monkeypatch.setattr(local, "_attempt_here", refuse)


def call(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=environment, prog_name="hpc-tune")


def refused(exit_code: int, *arguments: str) -> str:
    """Return what a mistake is answered with: on stderr, without a traceback."""
    result = call(*arguments)
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stderr


# ------------------------------------------------------------------------------- help


def test_help_lists_every_command() -> None:
    for flag in ("--help", "-h"):
        result = call(flag)
        assert result.exit_code == 0
        listed = {name.partition(" ")[0] for name in COMMANDS}
        assert all(re.search(rf"^  {name} +\S", result.stdout, re.MULTILINE) for name in listed)
        assert "Exit codes: 0 done, 1 failed" in result.stdout
    assert {"run", "resume", "collect"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    command = COMMANDS[name]
    result = call(*name.split(), "--help")
    assert result.exit_code == 0
    assert command.help
    assert "\\b" not in result.stdout  # click's mark, if it is not taken for one
    assert command.get_short_help_str(200).endswith(".")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.opts[0] in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_shows_facts_has_json(name: str) -> None:
    assert "--json" in {option for parameter in COMMANDS[name].params for option in parameter.opts}


def test_the_version() -> None:
    assert call("--version").stdout == f"hpc-tune, version {__version__}\n"


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    heavy = {"ray", "torch", "pandas", "numpy", "pydantic", "rich", "filelock"}
    command = [sys.executable, "-X", "importtime", str(HPC_TUNE), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hpc_tune.cli" in imported
    assert "click" in imported
    assert heavy.isdisjoint(imported)
    assert done.stdout.startswith("Usage: hpc-tune")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["run", "--sett", "a=1"], "No such option"),
        (["run", "--cpus", "0"], "0 is not in the range x>=1"),
        (["run", "--gpus", "-1"], "-1 is not in the range x>=0"),
        (["run", "--cpus", "many"], "'many' is not a valid integer"),
        (["status", "one", "two"], "unexpected extra argument"),
        (["resum"], "No such command 'resum'"),
        (["collect", "--runs-dir", "train.py"], "Directory 'train.py' is a file"),
    ],
)
def test_clicks_own_errors_are_usage_errors(arguments: list[str], answer: str) -> None:
    assert answer.lower() in refused(2, *arguments).lower()


# ------------------------------------------------------------------------------- mistakes


def test_no_experiment_and_no_pyproject(no_driver: None) -> None:
    assert refused(2, "run") == (
        "error: no experiment given, and no pyproject.toml here or above names one\n"
        'hint: name a file, or add to pyproject.toml:\n[tool.hpc-tune]\nexperiment = "my-search.toml"\n'
    )


def test_a_missing_experiment(project: Any, no_driver: None) -> None:
    project.json()
    assert refused(2, "run", "serach.json") == (
        "error: serach.json: 1 fault\n  there is no such file; did you mean 'search.json'?\n"
    )


def test_a_wrong_experiment_creates_nothing(project: Any, no_driver: None) -> None:
    path = project.json("metric", mode="up", trainable="train.py:trian")
    answer = refused(2, "run", path.name)
    assert answer.startswith("error: search.json: 3 faults\n")
    assert "  metric: is missing" in answer
    assert "  mode: expected 'min' or 'max', got 'up'" in answer
    assert "  trainable: " in answer
    assert not (project.path / "runs").exists()


@pytest.mark.parametrize(
    ("setting", "answer"),
    [
        ("mode", "error: --set mode: expected KEY=VALUE\nhint: for example --set space.lr=0.01\n"),
        ("mode=up", "mode: expected 'min' or 'max', got 'up'"),
        ("mod=max", "mod: unknown key; did you mean 'mode'?"),
    ],
)
def test_a_wrong_set(project: Any, no_driver: None, setting: str, answer: str) -> None:
    project.json()
    assert answer in refused(2, "run", "search.json", "--set", setting)


def test_a_trial_that_does_not_fit_this_machine(project: Any, no_driver: None) -> None:
    project.json(trial={"cpus": 3, "gpus": 2})
    answer = refused(2, "run", "search.json", "--cpus", "2", "--gpus", "1")
    assert "trial.cpus: a trial needs 3 CPUs, this machine has 2; use --set trial.cpus=2" in answer
    assert "trial.gpus: a trial needs 2 GPUs, this machine has 1; use --set trial.gpus=1" in answer
    assert not (project.path / "runs").exists()


def test_a_place_where_no_run_can_be(project: Any, no_driver: None) -> None:
    project.json()
    answer = refused(1, "run", "search.json", "--runs-dir", "train.py/runs")
    assert answer.startswith("error: cannot create a run in train.py/runs: Not a directory\nhint: choose another place")


@pytest.mark.parametrize("command", ["resume", "collect"])
def test_an_unknown_run(project: Any, runs_dir: Path, command: str) -> None:
    assert "error: there are no runs in runs\nhint: start one with" in refused(3, command)
    run = project.create_run(runs_dir)
    answer = refused(3, command, run.name[:-1] + "x", "--runs-dir", str(runs_dir))
    assert f"hint: did you mean '{run.name}'?" in answer


def test_resume_refuses_what_cannot_go_on(project: Any, runs_dir: Path, no_driver: None) -> None:
    run = project.create_run(runs_dir)
    run.new_attempt().end(Outcome("completed", "all trials have ended"))
    assert refused(1, "resume", str(run.path)) == (
        f"error: {run.name} is complete\n"
        "hint: to start its failed trials again add --retry-errors, to extend the search --more-samples N\n"
    )
    run.experiment_file.write_text(json.dumps(project.spec(num_samples=9)))
    answer = refused(1, "resume", str(run.path))
    assert f"the experiment of {run.name} has changed since it began:\n  num_samples was 1, is 9" in answer
    assert f"hint: put {run.experiment_file} back as it was, or begin a new run: hpc-tune run " in answer


def test_resume_refuses_another_users_run(project: Any, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = project.create_run(runs_dir)
    monkeypatch.setattr("hpc_tune.operations.continuing.os.getuid", lambda: 4711)
    assert "only its owner can resume it" in refused(1, "resume", str(run.path))


@pytest.mark.parametrize(
    ("failure", "exit_code"),
    [
        (HpcTuneError("x"), 1),
        (UsageError("x"), 2),
        (RunError("x"), 1),
        (RunNotFound("x"), 3),
        (RunBusy("x"), 3),
        (SlurmError("x"), 4),
        (TrialsFailed("x"), 5),
        (PermissionError(13, "Permission denied", "/some/file"), 1),
    ],
)
def test_each_error_has_its_exit_code(
    project: Any, monkeypatch: pytest.MonkeyPatch, failure: Exception, exit_code: int
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise failure

    monkeypatch.setattr(local, "searches", fail)
    answer = refused(exit_code, "run", "search.json")
    assert answer in ("error: x\n", "error: /some/file: Permission denied\n")


def test_a_reader_that_leaves_is_no_error(project: Any, runs_dir: Path) -> None:
    """As in ``hpc-tune collect --json | head -1``."""
    run = project.create_run(runs_dir)
    reader, writer = os.pipe()
    os.close(reader)
    command = [str(HPC_TUNE), "collect", str(run.path), "--json"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.stderr == ""


# ------------------------------------------------------------------------------- the default experiment


def test_pyproject_of_this_or_a_parent_folder(project: Any) -> None:
    project.write("pyproject.toml", '[tool.hpc-tune]\nexperiment = "deep/search.toml"\n')
    deep = project.path / "deep" / "er"
    deep.mkdir(parents=True)
    assert default_experiments(project.path) == default_experiments(deep) == [project.path / "deep" / "search.toml"]
    project.write("pyproject.toml", '[tool.hpc-tune]\nexperiment = ["a.toml", "b.toml"]\n')
    assert default_experiments(deep) == [project.path / "a.toml", project.path / "b.toml"]


def test_a_pyproject_that_names_none_is_passed_over(project: Any) -> None:
    project.write("pyproject.toml", '[tool.hpc-tune]\nexperiment = "search.toml"\n')
    inner = project.write("inner/pyproject.toml", "[tool.ruff]\n").parent
    assert default_experiments(inner) == [project.path / "search.toml"]


def test_a_broken_pyproject_is_named(project: Any) -> None:
    path = project.write("pyproject.toml", "[tool\n")
    with pytest.raises(UsageError, match=re.escape(f"{path} is not valid TOML: ")):
        default_experiments(project.path)


# ------------------------------------------------------------------------------- run and resume, without a driver


Driven = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Driven:
    """Let attempts end at once with an outcome; return what they were given."""

    def install(outcome: Outcome, collect_error: str | None = None) -> list[dict[str, Any]]:
        given: list[dict[str, Any]] = []

        def attempt(run: RunDir, experiment: Any, kind: str, node: Node, **options: Any) -> Ended:
            given.append({"run": run, "experiment": experiment, "kind": kind, "node": node} | options)
            options["watcher"].started(run, experiment, options["notes"])
            return Ended(run, run.new_attempt(), outcome, None, collect_error, tuple(options["notes"]))

        monkeypatch.setattr(local, "_attempt_here", attempt)
        return given

    return install


def test_run_creates_a_run_and_says_where(project: Any, driven: Driven) -> None:
    given = driven(Outcome("completed", "all trials have ended"))
    project.json(trial={"gpus": 1, "gpu_optional": True}, space={"n": {"grid": [1, 2]}})
    result = call("run", "search.json", "--set", "num_samples=3", "--cpus", "2", "--gpus", "0")
    assert result.exit_code == 0, result.output
    (attempt,) = given
    run = attempt["run"]
    assert result.stdout.splitlines() == [
        f"run {run.name}: 6 trials of train.py:train",
        f"in {run.path}",
        "note: no GPU on this machine: trials run on CPUs",
        "completed: all trials have ended",
    ]
    assert run.path.parent == project.path / "runs"
    assert (attempt["kind"], attempt["node"], attempt["experiment"].num_samples) == ("local", Node(2, 0), 3)
    assert run.record()["overrides"] == ["num_samples=3"]


def test_several_run_one_after_another_whatever_becomes_of_them(project: Any, driven: Driven) -> None:
    given = driven(Outcome("failed", "all trials failed", exit_code=5))
    for name in ("a", "b"):
        project.write(f"{name}.json", json.dumps(project.spec(name=name)))
    result = call("run", "a.json", "b.json", "--set", "num_samples=3", "--json")
    assert result.exit_code == 5
    assert [each["run"].name[:2] for each in given] == ["a-", "b-"]
    assert [each["path"] for each in json.loads(result.stdout)["runs"]] == [str(each["run"].path) for each in given]
    assert {each["experiment"].num_samples for each in given} == {3}
    project.write("b.json", "{}")
    assert "b.json: 4 faults" in refused(2, "run", "a.json", "b.json")
    assert len(given) == 2


def test_an_interrupt_is_for_all_that_would_follow(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(run: RunDir, *arguments: Any, **options: Any) -> Ended:
        outcome = Outcome("interrupted", "a signal came", exit_code=1, cause="signal")
        return Ended(run, run.new_attempt(), outcome, None, stopped=True)

    monkeypatch.setattr(local, "_attempt_here", stopped)
    project.json()
    result = call("run", "search.json", "search.json")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "not started: search.json"
    assert len(list((project.path / "runs").iterdir())) == 1


def test_the_seed_is_the_files_or_one_that_is_kept(project: Any, driven: Driven) -> None:
    given = driven(Outcome("completed", ""))
    project.json()
    for setting in ("seed=42", "num_samples=1", "num_samples=1"):
        call("run", "search.json", "--set", setting)
    seeds = [each["run"].record()["seed"] for each in given]
    assert seeds[0] == 42
    assert len(set(seeds)) == 3


def test_the_pyprojects_experiment_runs_as_typed(project: Any, driven: Driven) -> None:
    given = driven(Outcome("completed", ""))
    project.json()
    project.write("pyproject.toml", '[tool.hpc-tune]\nexperiment = "search.json"\n')
    assert call("run").exit_code == 0
    assert given[0]["experiment"].name == "search"


def test_the_runs_directory_comes_from_the_option_or_the_environment(
    project: Any, driven: Driven, tmp_path: Path
) -> None:
    given = driven(Outcome("completed", ""))
    project.json()
    call("run", "search.json", HPC_TUNE_RUNS_DIR=str(tmp_path / "env"))
    call("run", "search.json", "--runs-dir", str(tmp_path / "option"), HPC_TUNE_RUNS_DIR=str(tmp_path / "env"))
    assert [each["run"].path.parent.name for each in given] == ["env", "option"]


@pytest.mark.parametrize(
    ("outcome", "collect_error", "exit_code"),
    [
        (Outcome("completed", "r"), None, 0),
        (Outcome("completed", "r"), "cannot write trials.csv", 1),
        (Outcome("interrupted", "r"), None, 1),
        (Outcome("failed", "r", exit_code=1, hint="see the log"), None, 1),
        (Outcome("failed", "all 4 trials failed", exit_code=5), None, 5),
        (Outcome("failed", "r", exit_code=2), None, 2),
    ],
)
def test_the_exit_code_tells_how_it_ended(
    project: Any, driven: Driven, outcome: Outcome, collect_error: str | None, exit_code: int
) -> None:
    (given := driven(outcome, collect_error)).clear()
    project.json()
    result = call("run", "search.json")
    assert result.exit_code == exit_code
    assert f"{outcome.ending}: {outcome.reason}" in result.stdout
    assert ("hint: see the log" in result.stdout) == (outcome.hint is not None)
    assert (f"continue with: hpc-tune resume {given[0]['run'].path}" in result.stdout) == (
        outcome.ending == "interrupted"
    )
    assert ("error: cannot write trials.csv" in result.stderr) == (collect_error is not None)


def test_run_as_json(project: Any, driven: Driven) -> None:
    given = driven(Outcome("interrupted", "stopped", hint="go on"))
    project.json()
    result = call("run", "search.json", "--json")
    run = given[0]["run"]
    assert json.loads(result.stdout) == {
        "schema": 1,
        "run": run.name,
        "path": str(run.path),
        "attempt": 1,
        "ending": "interrupted",
        "reason": "stopped",
        "hint": "go on",
        "notes": [],
        "collect_error": None,
    }
    assert result.exit_code == 1


def test_resume_goes_on_as_the_run_began(project: Any, runs_dir: Path, driven: Driven) -> None:
    given = driven(Outcome("completed", "all trials have ended"))
    run = project.create_run(runs_dir, num_samples=2)
    run.new_attempt().end(Outcome("interrupted", "stopped"))
    project.json(num_samples=5)
    result = call("resume", run.name, "--runs-dir", str(runs_dir), "--cpus", "3", "--gpus", "0")
    assert result.exit_code == 0, result.output
    assert (given[0]["kind"], given[0]["node"], given[0]["experiment"].num_samples) == ("resume", Node(3, 0), 2)
    source = project.path / "search.json"
    assert f"note: {source} has been edited since (num_samples); this run goes on as it began" in result.stdout


def test_retry_errors_reaches_the_attempt(project: Any, runs_dir: Path, driven: Driven) -> None:
    given = driven(Outcome("completed", ""))
    run = project.create_run(runs_dir)
    run.new_attempt().end(Outcome("completed", ""))
    assert call("resume", str(run.path), "--retry-errors").exit_code == 0
    assert given[0]["retry_errors"] is True


def test_resume_does_not_need_the_source_any_more(project: Any, runs_dir: Path, driven: Driven) -> None:
    given = driven(Outcome("completed", ""))
    run = project.create_run(runs_dir)
    for path in (project.path / "search.json", project.path / "train.py"):
        path.unlink()
    assert call("resume", str(run.path)).exit_code == 0
    assert given[0]["notes"] == []


# ------------------------------------------------------------------------------- collect


def result_line(trial: str, iteration: int, done: bool = False, **metrics: Any) -> str:
    ours = {"trial_id": trial, "training_iteration": iteration, "time_this_iter_s": 2.0, "timestamp": 1795478500}
    return json.dumps({**metrics, **ours, "time_total_s": 2.0 * iteration, "done": done, "hostname": "iris-172"}) + "\n"


@pytest.fixture
def finished(project: Any, runs_dir: Path) -> RunDir:
    """Two trials: one finished with NaN in between, one without any result."""
    run = project.create_run(runs_dir)
    for trial, lines in (
        ("a_00000", [(1, 0.5), (2, float("nan")), (3, 0.75)]),
        ("a_00001", []),
    ):
        folder = run.storage / trial
        folder.mkdir()
        (folder / "params.json").write_text(json.dumps({"lr": 0.125, "layers": 3}))
        text = [result_line(trial, iteration, done=iteration == 3, accuracy=value) for iteration, value in lines]
        (folder / "result.json").write_text("".join(text))
    return run


def test_collect_writes_and_shows_the_tables(finished: RunDir) -> None:
    result = call("collect", str(finished.path))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:5] == [
        finished.name,
        "trials: 1 finished, 1 interrupted",
        "best accuracy: 0.75 (trial a_00000, iteration 3)",
        "  lr = 0.125",
        "  layers = 3",
    ]
    files = [finished.path / name for name in ("trials.csv", "history.csv", "summary.csv")]
    assert lines[-1] == "tables: " + " ".join(map(str, files))
    with files[0].open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["trial_id"], row["config/lr"], row["best_value"]) for row in rows] == [
        ("a_00000", "0.125", "0.75"),
        ("a_00001", "0.125", ""),
    ]


def test_collect_as_json_has_keys_that_stay(finished: RunDir) -> None:
    """Scripts rely on these; more may be added, with a new schema when one goes."""
    answer = json.loads(call("collect", str(finished.path), "--json").stdout, parse_constant=pytest.fail)
    assert set(answer) == {"schema", "runs"}
    assert answer["schema"] == 1
    (run,) = answer["runs"]
    assert set(run) == {"run", "path", "files", "summary", "best", "warning"}
    assert set(run["summary"]) == {
        *("run", "metric", "mode", "trials", "terminated", "error", "interrupted", "running", "paused", "pending"),
        *("best_trial", "best_value", "best_iteration", "config/lr", "config/layers", "wall_seconds"),
        *("trial_seconds", "cpu_hours", "gpu_hours", "attempts", "repeated_rows", "malformed_lines"),
    }
    assert set(run["best"]) == {
        *("trial_id", "status", "config/lr", "config/layers", "accuracy", "best_value", "best_iteration"),
        *("iterations", "seconds", "node", "started", "ended", "checkpoint", "error"),
    }
    assert (run["run"], run["path"]) == (finished.name, str(finished.path))
    assert (run["best"]["best_value"], run["best"]["best_iteration"], run["summary"]["wall_seconds"]) == (0.75, 3, None)


def test_collect_of_several_runs(finished: RunDir, project: Any, runs_dir: Path) -> None:
    other = project.create_run(runs_dir, name="other")
    arguments = (finished.name, "other", "--runs-dir", str(runs_dir))
    answer = json.loads(call("collect", *arguments, "--json").stdout)
    assert [run["run"] for run in answer["runs"]] == [finished.name, other.name]
    assert answer["runs"][1]["best"] is None
    assert [
        name for name in call("collect", *arguments).stdout.splitlines() if name in (finished.name, other.name)
    ] == [
        *(finished.name, other.name),
    ]


def test_collect_takes_the_latest_run(finished: RunDir, runs_dir: Path) -> None:
    assert call("collect", HPC_TUNE_RUNS_DIR=str(runs_dir)).stdout.startswith(finished.name)


def test_collect_of_a_live_run_says_running(finished: RunDir) -> None:
    with finished.locked():
        assert "trials: 1 finished, 1 running" in call("collect", str(finished.path)).stdout


def test_collect_of_damaged_results_says_so(finished: RunDir) -> None:
    with (finished.storage / "a_00001" / "result.json").open("a") as file:
        file.write('{"accuracy": 0.\n')
    result = call("collect", str(finished.path))
    assert result.exit_code == 0
    assert "note: " in result.stdout
    assert json.loads(call("collect", str(finished.path), "--json").stdout)["runs"][0]["warning"]


def test_collect_of_a_damaged_record_is_refused(finished: RunDir) -> None:
    finished.record_file.write_text("{")
    assert refused(1, "collect", str(finished.path)) == f"error: {finished.record_file} is missing or damaged\n"
