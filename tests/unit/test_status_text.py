"""What ``status`` and ``list`` look like: lines, a live view, and JSON whose keys are a promise."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hpc_tune import render
from hpc_tune.cli import cli
from hpc_tune.operations.listing import list_all
from hpc_tune.operations.status import status
from hpc_tune.slurm.states import JobState
from tests.unit.made_runs import NODES, FakeSlurm, MadeRun, ended, searching

HPC_TUNE = Path(sys.executable).with_name("hpc-tune")

STATUS_KEYS = {
    "": "schema run path state reason live over created seen jobs time_left_seconds metric trials best curve"
    " eta_seconds nodes_asked nodes phases_seconds attempts tables notes next followups",
    "jobs": "job_id state reason partition nodes node_list submitted start end time_limit time_left elapsed",
    "trials": "total running terminated",
    "best": "trial_id value iteration config",
    "nodes": "name state reason log",
    "attempts": "number state reason job_id restart_count started ended gap iterations finished lost",
}
LIST_KEYS = {
    "": "schema runs_dir runs note",
    "runs": "run path state reason created finished total metric best attempts host job",
    "best": "trial_id value",
}


@pytest.fixture
def made(project: Any, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> MadeRun:
    """A run in a time that stands still: what is shown to a tenth of a second does not depend on the machine."""
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now)
    return MadeRun(project.create_run(runs_dir, num_samples=8))


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """Stand in for Slurm wherever a command makes one; the modules are shadowed by functions of their names."""
    fake = FakeSlurm()
    for name in ("status", "listing", "logs", "cancel"):
        monkeypatch.setattr(import_module(f"hpc_tune.operations.{name}"), "Slurm", lambda: fake)
    return fake


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments], prog_name="hpc-tune")


def whole(made: MadeRun, slurm: FakeSlurm) -> None:
    """Give a run something of everything."""
    now = time.time()
    made.submitted("11", ago=900)
    first = replace(searching(best=0.5, TERMINATED=1, RUNNING=1), curve=(0.4, 0.5))
    earlier = made.attempt(
        "11", ago=800, nodes=2, names=NODES[:2], progress=first, outcome=ended("interrupted", "walltime", ago=700)
    )
    made.node(earlier, NODES[0], 0, "ended", up=now - 797)
    made.node(earlier, NODES[1], 1, "up", up=now - 797)
    made.submitted("12", ago=650, by="successor")
    progress = searching(best=0.75, TERMINATED=3, RUNNING=4)
    progress = replace(progress, curve=(0.25, 0.75), curve_step=2)
    progress.phases.update(driver_up=now - 594, first_result=now - 590)
    attempt = made.attempt("12", ago=600, nodes=4, names=NODES, progress=progress)
    for rank, name in enumerate(NODES[:2]):
        made.node(attempt, name, rank, "up", up=now - 597)
    made.node(attempt, NODES[2], 2, "failed", reason="/tmp has 3 MB free", log="no room")
    slurm.has("12", JobState.RUNNING, partition="gpu", node_list="iris-[169-172]", start=now - 600, end=now + 4200)


def test_status_says_all_there_is_to_say(made: MadeRun, slurm: FakeSlurm) -> None:
    whole(made, slurm)
    log = made.run.path / "attempts/002/nodes/iris-171.log"
    lines = call("status", made.run.path).stdout.splitlines()
    assert lines == [
        f"{made.run.name}: running",
        "  attempt 2 runs in job 12 on iris-[169-172]",
        "  trials    3 finished, 4 running of 8",
        "  best      accuracy 0.75 (trial t_3, iteration 7)",
        "            lr=0.1",
        "  curve     ▁▃▃▃██ from 0.4 to 0.75",  # 0.25 was no better than what the attempt before had found
        "  slurm     job 12 RUNNING in gpu on iris-[169-172]; 1 h 10 min to its time limit",
        "  nodes     2 of 4 joined",
        f"            iris-171 failed: /tmp has 3 MB free; see {log}",
        "            iris-172 missing: its agent has not shown itself yet",
        "  phases    iris-169 up 3.0 s, iris-170 up 3.0 s, driver up 6.0 s, first result 10.0 s",
        "  attempts  1 job 11: interrupted after 1 min 40 s; 20 results, 1 trial ended; without iris-170; walltime",
        "            2 job 12: running for 10 min 00 s, 1 min 40 s after the one before; 20 results, 2 trials ended",
        f"  next      hpc-tune logs {made.run.path} --follow",
        f"            hpc-tune cancel {made.run.path}",
    ]
    assert slurm.asked == [["12"]]


def test_the_json_of_status_is_a_promise(made: MadeRun, slurm: FakeSlurm) -> None:
    whole(made, slurm)
    shown = json.loads(call("status", made.run.path, "--json").stdout)
    assert shown["schema"] == 1
    for key, keys in STATUS_KEYS.items():
        part = shown[key] if key else shown
        assert set(part[0] if isinstance(part, list) else part) == set(keys.split()), key
    assert (shown["state"], shown["jobs"][0]["state"]) == ("running", "RUNNING")
    assert shown["attempts"][0]["state"] == "interrupted"
    assert shown["trials"] == {"total": 8, "terminated": 3, "running": 4}


def test_status_of_a_new_run(made: MadeRun, slurm: FakeSlurm) -> None:
    assert call("status", made.run.path).stdout.splitlines() == [
        f"{made.run.name}: created",
        "  nothing has been started yet",
        "  trials    none yet of 8",
        f"  next      hpc-tune resume {made.run.path}",
    ]
    shown = json.loads(call("status", made.run.path, "--json").stdout)
    assert set(shown) == set(STATUS_KEYS[""].split())
    assert (shown["best"], shown["jobs"], shown["time_left_seconds"]) == (None, [], None)


def test_a_silent_slurm_is_a_note(made: MadeRun, slurm: FakeSlurm) -> None:
    whole(made, slurm)
    slurm.silent = "squeue did not answer within 10 s"
    result = call("status", made.run.path)
    assert result.exit_code == 0
    assert "  note      Slurm could not be asked (squeue did not answer within 10 s); this is what" in result.stdout
    assert "3 finished, 4 running of 8" in result.stdout


def test_watch_in_a_pipe_is_lines_and_then_the_whole(made: MadeRun, slurm: FakeSlurm) -> None:
    whole(made, slurm)
    live = status(made.run, slurm=slurm)
    made.run.attempts()[-1].end(ended("completed", "all trials have ended"))
    slurm.has("12", JobState.COMPLETED)
    with_lines = CliRunner().invoke(_shows([live, live, status(made.run, slurm=slurm)])).stdout.splitlines()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d running: attempt 2 runs in job 12 on iris-\[169-172\]"
        r" · 3 finished, 4 running of 8 · best accuracy 0.75",
        with_lines[0],
    )
    assert with_lines[1] == f"{made.run.name}: completed"


def _shows(views: Any) -> Any:
    import click

    return click.command()(lambda: render.watched(views))


def test_watch_on_a_terminal_redraws(made: MadeRun, slurm: FakeSlurm) -> None:
    """In a pseudo-terminal of script(1), where rich draws; brackets in names and configs are no markup."""
    made.attempt(outcome=ended("completed", "all [red]trials[/red] have ended"))
    if shutil.which("script") is None:
        pytest.skip("needs script(1)")
    command = f"{HPC_TUNE} status {made.run.path} --watch 0.2"
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"], capture_output=True, text=True, check=True, timeout=30
    )
    assert "all [red]trials[/red] have ended" in done.stdout


def test_ctrl_c_leaves_a_watch_quietly(made: MadeRun) -> None:
    made.attempt(ago=1, progress=searching(RUNNING=1))
    with made.run.locked():
        command = [str(HPC_TUNE), "status", str(made.run.path), "--watch", "0.2"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert "running: attempt 1 runs" in process.stdout.readline()
            process.send_signal(2)
            assert process.wait(timeout=10) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""


@pytest.mark.parametrize(
    "words", [["--watch", "search"], ["search", "--watch"], ["--watch", "0.1", "search"], ["--watch=1"]]
)
def test_watch_takes_seconds_or_none(made: MadeRun, runs_dir: Path, slurm: FakeSlurm, words: list[str]) -> None:
    made.attempt(outcome=ended("completed", "all trials have ended"))
    result = call("status", *words, "--runs-dir", runs_dir)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{made.run.name}: completed")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--watch", "often", "search"], "--watch: expected seconds, got 'often'"),
        (["--watch", "0"], "--watch: expected at least 0.1 seconds, got 0"),
        (["--watch", "nan"], "--watch: expected at least 0.1 seconds, got nan"),
        (["--watch", "--json"], "--json shows one instant: leave out --watch"),
    ],
)
def test_a_wrong_watch(made: MadeRun, runs_dir: Path, slurm: FakeSlurm, words: list[str], answer: str) -> None:
    result = call("status", *words, "--runs-dir", runs_dir)
    assert result.exit_code == 2
    assert answer in result.stderr


# ------------------------------------------------------------------------------- list


def test_list_is_a_line_for_each_run(project: Any, runs_dir: Path, slurm: FakeSlurm) -> None:
    names = ["a", "b", "c", "d"]
    local, on_slurm, waiting, damaged = (MadeRun(project.create_run(runs_dir, name=name)) for name in names)
    local.attempt(progress=searching(best=0.5, TERMINATED=7, ERROR=1), outcome=ended("completed", "all have ended"))
    on_slurm.attempt("12", progress=searching(RUNNING=2))
    waiting.submitted("13")
    damaged.run.record_file.write_text("{")
    slurm.has("12", JobState.RUNNING).has("13", JobState.PENDING)
    result = call("list", "--runs-dir", runs_dir)
    lines = [re.split(r"  +", line) for line in result.stdout.splitlines()]
    assert lines == [
        ["RUN", "STATE", "TRIALS", "BEST", "ATTEMPTS", "AGE", "WHERE"],
        [local.run.name, "completed", "8/8", "accuracy 0.5", "1", "0 s", "local, here"],
        [on_slurm.run.name, "running", "0/8", "-", "1", "0 s", "job 12 RUNNING"],
        [waiting.run.name, "pending", "0/1", "-", "0", "0 s", "job 13 PENDING"],
        [damaged.run.name, "unknown", "0/0", "-", "0", "-", "-"],
    ]
    assert slurm.asked == [["12", "13"]]  # one question for all


def test_the_json_of_list_is_a_promise(made: MadeRun, runs_dir: Path, slurm: FakeSlurm) -> None:
    whole(made, slurm)
    shown = json.loads(call("list", "--runs-dir", runs_dir, "--json").stdout)
    assert set(shown) == set(LIST_KEYS[""].split())
    (run,) = shown["runs"]
    assert set(run) == set(LIST_KEYS["runs"].split())
    assert set(run["best"]) == set(LIST_KEYS["best"].split())
    assert set(run["job"]) == set(STATUS_KEYS["jobs"].split())
    assert (run["finished"], run["total"], run["attempts"], shown["note"]) == (3, 8, 2, None)


def test_list_while_slurm_is_silent(made: MadeRun, runs_dir: Path, slurm: FakeSlurm) -> None:
    made.attempt("12", progress=searching(RUNNING=2), seen=500)
    slurm.silent = "squeue is not there"
    lines = call("list", "--runs-dir", runs_dir).stdout.splitlines()
    assert lines[1].split()[1] == "unknown"
    assert lines[1].endswith("job 12")
    assert (
        lines[2] == "note: Slurm could not be asked (squeue is not there); the states are those of the runs' own files"
    )


def test_no_runs(runs_dir: Path) -> None:
    assert call("list", "--runs-dir", runs_dir).stdout == f"there are no runs in {runs_dir}\n"
    assert json.loads(call("list", "--runs-dir", runs_dir, "--json").stdout)["runs"] == []


def test_list_is_quick_and_never_looks_into_storage(made: MadeRun, runs_dir: Path) -> None:
    """200 runs: the folders of their trials are not there, and would be seen to be missing."""
    made.attempt("12", progress=searching(RUNNING=2, TERMINATED=48))
    shutil.rmtree(made.run.storage)
    for number in range(199):
        shutil.copytree(made.run.path, runs_dir / f"copy-{number}")
    slurm = FakeSlurm()
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        assert len(list_all(runs_dir, slurm=slurm).runs) == 200
        took.append(time.perf_counter() - begun)
    assert min(took) < 0.5
    assert len(slurm.asked) == 3


def test_a_run_is_found_by_its_beginning(made: MadeRun, runs_dir: Path, slurm: FakeSlurm) -> None:
    assert call("status", "sea", "--runs-dir", runs_dir).exit_code == 0
    for command in ("status", "logs", "cancel"):
        result = call(command, "serach", "--runs-dir", runs_dir)
        assert result.exit_code == 3
        assert "error: no run 'serach'" in result.stderr
