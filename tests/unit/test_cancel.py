"""Ending what is live: jobs that run, that wait, that come meanwhile, and drivers on this machine."""

from __future__ import annotations

import getpass
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hpc_tune.cli import cli
from hpc_tune.errors import RunBusy, SlurmError
from hpc_tune.operations.cancel import cancel
from hpc_tune.operations.status import status
from hpc_tune.run import RunDir
from hpc_tune.slurm.commands import JobInfo
from hpc_tune.slurm.states import JobState
from tests.unit.made_runs import FakeSlurm, MadeRun, ended, searching

DRIVER = """\
import json, signal, sys, time
from pathlib import Path
from hpc_tune.attempt import Attempt, Outcome
from hpc_tune.run import RunDir
run = RunDir(Path(sys.argv[1]))
deaf = len(sys.argv) > 2

def save(number, frame):
    if not deaf:
        run.attempts()[-1].end(Outcome("interrupted", "stopped by a signal; the state is saved"))
        sys.exit()

signal.signal(signal.SIGTERM, save)
with run.locked():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def made(project: Any, runs_dir: Path) -> MadeRun:
    return MadeRun(project.create_run(runs_dir, num_samples=8))


class Clock:
    """Time that passes only while somebody sleeps; each sleep is followed by a step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], Any]) -> None:
        self.now = 1000.0
        self.steps = list(steps)
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.steps:
            self.steps.pop(0)()


def marks(run: RunDir) -> set[str]:
    return {path.name for path in run.jobs_dir.iterdir() if path.suffix in (".cancelled", ".stop")}


def test_a_waiting_job_is_ended_at_once(made: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    made.submitted("12")
    slurm = FakeSlurm().has("12", JobState.PENDING)
    clock = Clock(monkeypatch)
    done = cancel(made.run, slurm=slurm, sleep=clock.sleep)
    assert (done.waiting, done.running, done.process, done.left) == (("12",), (), None, ())
    assert clock.now == 1000.0
    assert slurm.cancelled == ["12"]
    assert marks(made.run) == {"12.cancelled"}
    found = status(made.run, slurm=FakeSlurm())
    assert found.state == "cancelled"
    assert found.next == (f"hpc-tune resume {made.run.path}",)


def test_an_attempt_is_asked_to_save_first(made: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    made.submitted("12", ago=100)
    attempt = made.attempt("12", restart=3, progress=searching(RUNNING=1))
    slurm = FakeSlurm().has("12", JobState.RUNNING)

    def saved() -> None:
        assert marks(made.run) == {"12.cancelled", "12.3.stop"}
        attempt.end(ended("interrupted", "asked to stop; the state is saved"))
        slurm.has("12", JobState.COMPLETED)

    clock = Clock(monkeypatch, lambda: None, saved)
    told: list[str] = []
    done = cancel(made.run, slurm=slurm, told=told.append, sleep=clock.sleep)
    assert (done.running, done.left, slurm.cancelled) == (("12",), (), [])  # it ended by itself
    assert done.outcome is not None
    assert done.outcome.reason == "asked to stop; the state is saved"
    assert told == ["asked attempt 1 in job 12 to save; waiting up to 30 s"]
    assert clock.now - 1000 == 1.5
    found = status(made.run, slurm=slurm)
    assert (found.state, found.attempts[0].state) == ("cancelled", "cancelled")


def test_one_that_does_not_save_in_time_is_ended(made: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    made.attempt("12", progress=searching(RUNNING=1))
    made.run.jobs_dir.mkdir()
    slurm = FakeSlurm().has("12", JobState.RUNNING)
    clock = Clock(monkeypatch)
    done = cancel(made.run, wait=10, slurm=slurm, sleep=clock.sleep)
    assert (done.running, done.outcome, slurm.cancelled) == (("12",), None, ["12"])
    assert done.seconds == clock.now - 1000 == 10
    assert len(slurm.asked) <= 10  # growing pauses
    assert (
        status(made.run, slurm=slurm).reason
        == f"cancelled by {getpass.getuser()} on {socket.gethostname()} before it could save"
    )


@pytest.mark.parametrize("options", [{"now": True}, {"wait": 0}])
def test_now_asks_nobody(made: MadeRun, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made.submitted("12", ago=100)
    made.attempt("12", progress=searching(RUNNING=1))
    made.submitted("13", by="successor")
    slurm = FakeSlurm().has("12", JobState.RUNNING).has("13", JobState.PENDING)
    done = cancel(made.run, slurm=slurm, sleep=Clock(monkeypatch).sleep, **options)
    assert (done.running, done.waiting, sorted(slurm.cancelled)) == (("12",), ("13",), ["12", "13"])
    assert marks(made.run) == {"12.cancelled", "13.cancelled"}


def test_what_comes_back_meanwhile_is_ended_too(made: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job had just put itself back into the queue, and sent a successor."""
    made.submitted("12", ago=100)
    attempt = made.attempt("12", progress=searching(RUNNING=1))
    slurm = FakeSlurm().has("12", JobState.RUNNING)

    def requeued() -> None:
        attempt.end(ended("interrupted", "the walltime is near"))
        slurm.has("12", JobState.PENDING).has("13", JobState.PENDING)
        made.submitted("13", by="successor")

    cancel(made.run, slurm=slurm, sleep=Clock(monkeypatch, requeued).sleep)
    assert sorted(slurm.cancelled) == ["12", "13"]
    assert marks(made.run) == {"12.0.stop", "12.cancelled", "13.cancelled"}


def test_a_job_whose_attempt_has_not_begun_has_nothing_to_save(made: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    made.submitted("12")
    slurm = FakeSlurm().has("12", JobState.RUNNING)
    clock = Clock(monkeypatch)
    cancel(made.run, slurm=slurm, sleep=clock.sleep)
    assert (slurm.cancelled, clock.now, marks(made.run)) == (["12"], 1000.0, {"12.cancelled"})


def test_slurm_takes_its_time(made: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(FakeSlurm):
        def cancel(self, ids: Iterable[str], *, signal: str | None = None) -> None:
            for job_id in ids:
                self.known[job_id] = replace(self.known[job_id], state=JobState.COMPLETING)

    made.attempt("12", progress=searching(RUNNING=1))
    made.run.jobs_dir.mkdir()
    slurm = Slow({"12": JobInfo("12", JobState.RUNNING)})
    done = cancel(made.run, now=True, slurm=slurm, sleep=Clock(monkeypatch).sleep)
    assert done.left == ("12",)


def test_a_refusal_leaves_no_mark(made: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    made.submitted("12")
    slurm = FakeSlurm(refuses=True).has("12", JobState.PENDING)
    with pytest.raises(SlurmError, match="denied"):
        cancel(made.run, slurm=slurm, sleep=Clock(monkeypatch).sleep)
    assert marks(made.run) == set()


def test_a_job_that_ends_just_before_scancel_is_no_fault(made: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    class Quick(FakeSlurm):
        def cancel(self, ids: Iterable[str], *, signal: str | None = None) -> None:
            self.known = {job_id: JobInfo(job_id, JobState.COMPLETED) for job_id in self.known}
            raise SlurmError("scancel: job has already finished")

    made.submitted("12")
    slurm = Quick({"12": JobInfo("12", JobState.PENDING)})
    assert cancel(made.run, slurm=slurm, sleep=Clock(monkeypatch).sleep).waiting == ("12",)


def test_a_silent_slurm_changes_nothing(made: MadeRun) -> None:
    made.submitted("12")
    with pytest.raises(SlurmError, match="slurmctld is down"):
        cancel(made.run, slurm=FakeSlurm(silent="slurmctld is down"))
    assert marks(made.run) == set()


def test_nothing_is_live(made: MadeRun) -> None:
    made.attempt(outcome=ended("completed", "all have ended"))
    result = CliRunner().invoke(cli, ["cancel", str(made.run.path)])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"nothing of {made.run.name} is live; ")
    assert status(made.run).state == "completed"


# ------------------------------------------------------------------------------- on this machine


@contextmanager
def driver(made: MadeRun, *options: str) -> Iterator[subprocess.Popen[str]]:
    made.attempt(progress=searching(RUNNING=2))
    command = [sys.executable, "-c", DRIVER, str(made.run.path), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_driver_on_this_machine_saves_and_ends(made: MadeRun) -> None:
    with driver(made) as process:
        result = CliRunner().invoke(cli, ["cancel", str(made.run.path)])
        assert result.exit_code == 0
        assert result.stdout.startswith(f"asked process {process.pid} to save; waiting up to 30 s\ncancelled: process ")
        assert "its attempt is interrupted: stopped by a signal; the state is saved" in result.stdout
        assert result.stdout.endswith(f"continue with: hpc-tune resume {made.run.path}\n")
    found = status(made.run)
    assert found.state == "cancelled"
    assert found.trials == {"INTERRUPTED": 2}


@pytest.mark.parametrize("options", [["--wait", "0.5"], ["--now"]])
def test_a_deaf_driver_is_killed(made: MadeRun, options: list[str]) -> None:
    with driver(made, "deaf") as process:
        result = CliRunner().invoke(cli, ["cancel", str(made.run.path), "--json", *options])
        assert process.wait(timeout=5) == -signal.SIGKILL
    shown = json.loads(result.stdout)
    assert set(shown) == {
        *("schema", "run", "path", "running_jobs", "waiting_jobs", "process", "outcome", "left_jobs", "seconds"),
        *("behind", "goes_on", "followups"),
    }
    assert (shown["process"], shown["outcome"]) == (f"process {process.pid}", None)
    assert status(made.run).state == "cancelled"


def test_a_driver_on_another_machine_is_named(made: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    with driver(made) as process:
        monkeypatch.setattr("hpc_tune.run.socket.gethostname", lambda: "login2")
        with pytest.raises(RunBusy, match=f"is live elsewhere: process {process.pid} on "):
            cancel(made.run)
        assert process.poll() is None
