"""Run directories, their locks, and the commands' answers to mistakes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpc_tune.attempt import Outcome
from hpc_tune.cli import cli
from hpc_tune.durable import read_json, replacing, write_json
from hpc_tune.errors import RunBusy, RunError, RunNotFound
from hpc_tune.experiment.load import load_experiment
from hpc_tune.operations.chosen import default_experiments
from hpc_tune.render import number, to_json
from hpc_tune.run import RunDir, find_run

SPEC = 'name = "s"\ntrainable = "train.py:train"\nmetric = "acc"\nmode = "max"\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / 'it\'s "odd" $(here)'
    for kept_out in (".git", "__pycache__", "runs"):
        (folder / kept_out).mkdir(parents=True)
        (folder / kept_out / "file").touch()
    (folder / "train.py").write_text("def train(config):\n    pass\n")
    (folder / "s.toml").write_text(SPEC)
    return folder


def _create(source: Path, runs_dir: Path) -> RunDir:
    return RunDir.create(runs_dir, load_experiment(source / "s.toml"), overrides=[], seed=1, command=["hpc-tune"])


def test_a_run_is_complete_private_and_has_a_name_of_its_own(source: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: _create(source, source / "runs"), range(8)))
    assert len({run.path for run in runs}) == 8
    for run in runs:
        assert run.path.stat().st_mode & 0o777 == 0o700
        assert sorted(path.name for path in run.code.iterdir()) == ["s.toml", "train.py"]
        assert run.experiment_file.read_text() == SPEC


def test_what_cannot_be_created_leaves_nothing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "file").touch()
    with pytest.raises(RunError, match="cannot create a run") as caught:
        _create(source, source / "file")
    assert "--runs-dir" in str(caught.value.hint)
    monkeypatch.setattr("hpc_tune.snapshot.MOST_FILES", 1)
    with pytest.raises(RunError, match="holds more than 1 files"):
        _create(source, source / "other")
    assert list((source / "other").iterdir()) == []


def test_large_files_are_linked(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpc_tune.snapshot.LINKED_ABOVE", 100)
    (source / "data.bin").write_bytes(b"x" * 101)
    copy = _create(source, source / "runs").code / "data.bin"
    assert copy.is_symlink()
    assert copy.resolve() == (source / "data.bin").resolve()


def test_a_run_is_found_by_what_a_user_types(source: Path) -> None:
    runs_dir = source / "runs"
    with pytest.raises(RunNotFound, match="there are no runs"):
        find_run(runs_dir, None)
    first, second = _create(source, runs_dir), _create(source, runs_dir)
    assert find_run(runs_dir, str(first.path)).path == first.path
    assert find_run(runs_dir, second.name).path == second.path
    assert find_run(runs_dir, None).path == second.path
    with pytest.raises(RunNotFound, match="could be any of"):
        find_run(runs_dir, "s-")
    with pytest.raises(RunNotFound, match="no run 'x'"):
        find_run(runs_dir, "x")


def test_attempts_are_numbered_and_end_once(source: Path) -> None:
    run = _create(source, source / "runs")
    with ThreadPoolExecutor(8) as pool:
        attempts = list(pool.map(lambda _: run.new_attempt(), range(8)))
    assert sorted(attempt.number for attempt in attempts) == list(range(1, 9))
    attempts[0].end(Outcome("interrupted", "first"))
    attempts[0].end(Outcome("failed", "second"))
    outcome = attempts[0].outcome()
    assert outcome is not None
    assert outcome.reason == "first"


HOLDER = """
import sys, time
from pathlib import Path
from hpc_tune.run import RunDir

with RunDir(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_excludes_and_outlives_no_killed_holder(source: Path) -> None:
    run = _create(source, source / "runs")
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunBusy, match=f"process {holder.pid} on {socket.gethostname()}"), run.locked():
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert run.lock.holder() is None
    with run.locked():
        assert run.lock.holder() == f"process {os.getpid()} on {socket.gethostname()}"
    assert run.lock.holder() is None


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"old": 1})

    def fill_the_disk() -> None:
        with replacing(path) as file:
            file.write(b'{"new"')
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fill_the_disk()
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]
    path.write_text('{"half')
    assert read_json(path) is None


@pytest.mark.parametrize(
    ("arguments", "exit_code", "answer"),
    [
        (["run", "missing.toml"], 2, "there is no such file; did you mean 's.toml'?"),
        (["run", "s.toml", "--set", "mode=up"], 2, "mode: expected 'min' or 'max', got 'up'"),
        (["run", "s.toml", "--set", "mode"], 2, "expected KEY=VALUE"),
        (["run"], 2, "no experiment given"),
        (["resume", "nothing"], 3, "there are no runs"),
        (["collect"], 3, "there are no runs"),
    ],
)
def test_mistakes_are_answered_without_a_traceback(
    source: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], exit_code: int, answer: str
) -> None:
    monkeypatch.chdir(source)
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == exit_code
    assert answer in result.stderr
    assert "Traceback" not in result.output


def test_every_command_has_help() -> None:
    for name, command in cli.commands.items():
        assert command.help, name
        assert CliRunner().invoke(cli, [name, "--help"]).exit_code == 0


def test_pyproject_of_a_parent_names_the_experiment(source: Path) -> None:
    (source / "pyproject.toml").write_text('[tool.hpc-tune]\nexperiment = "s.toml"\n')
    (source / "deep").mkdir()
    assert default_experiments(source / "deep") == [source / "s.toml"]


def test_collect_of_a_run_without_trials(source: Path) -> None:
    run = _create(source, source / "runs")
    result = CliRunner().invoke(cli, ["collect", str(run.path)])
    assert result.exit_code == 0, result.output
    assert "trials: none yet" in result.output
    assert {path.name for path in run.path.glob("*.csv")} == {"trials.csv", "history.csv", "summary.csv"}


def test_numbers_and_json() -> None:
    assert number(0.123456789) == "0.123457"
    assert number(True) == "True"
    assert '"value": null' in to_json({"value": float("nan")})
