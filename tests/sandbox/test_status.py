"""``list``, ``status``, ``logs`` and ``cancel`` beside a real Slurm; small jobs leave the records of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hpc_tune_slurm.sandbox import Sandbox, SandboxConfig
from hpc_tune_slurm.sandbox.daemons import Daemons
from hpc_tune_slurm.sandbox.layout import Layout
from hpc_tune_slurm.sandbox.waiting import wait_until

from hpc_tune.operations.cancel import cancel
from hpc_tune.operations.listing import list_all
from hpc_tune.operations.status import RunStatus, status
from hpc_tune.slurm.client import Slurm
from tests.sandbox.conftest import REQUEUE_DELAY, running
from tests.unit.conftest import Project
from tests.unit.made_runs import MadeRun, searching

pytestmark = pytest.mark.slurm

HPC_TUNE = Path(sys.executable).with_name("hpc-tune")

SAVES = """\
while [ ! -e {run}/jobs/$SLURM_JOB_ID.0.stop ]; do sleep 0.1; done
echo saving
echo '{{"ending": "interrupted", "reason": "asked to stop; the state is saved", "ended": '$(date +%s)'}}' \
  > {run}/attempts/001/outcome.json
"""
"""What a job does that saves when its stop marker appears."""


@pytest.fixture(scope="module")
def forgetful_sandbox(new_state_dir: Callable[[str], Path]) -> Iterator[Sandbox]:
    """Two small nodes, no accounting; a job that has ended is forgotten at once. Its slurmctld may be stopped."""
    config = SandboxConfig(
        state_dir=new_state_dir("status"), nodes=2, cpus=4, gpus=0, min_job_age=2, requeue_delay=REQUEUE_DELAY
    )
    yield from running(config)


class OnSandbox(MadeRun):
    """A run with jobs on a sandbox."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        super().__init__(Project(folder / "project").create_run(folder / "runs", num_samples=8))
        self.sandbox = sandbox
        self.slurm = Slurm(timeout=60, environ=os.environ | sandbox.env())
        self.run.jobs_dir.mkdir()

    def send(self, script: str, *options: str) -> str:
        """Submit a job script as the run's, its log where it belongs."""
        log = self.run.jobs_dir / "%j.log"
        argv = ["sbatch", "--parsable", f"--output={log}", "--open-mode=append", "--time=10", *options]
        text = f"#!/bin/bash\n{script.format(run=self.run.path)}\n"
        job_id = self.sandbox.run(argv, stdin=text).stdout.strip()
        self.submitted(job_id)
        return job_id

    def status(self) -> RunStatus:
        return status(self.run, slurm=self.slurm)

    def reaches(self, state: str, seconds: float = 60.0) -> RunStatus:
        wait_until(lambda: self.status().state == state, f"the run is {state}", seconds)
        return self.status()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.sandbox.run([HPC_TUNE, *arguments, "--runs-dir", self.run.path.parent], check=False)


@contextmanager
def run_on(sandbox: Sandbox, folder: Path) -> Iterator[OnSandbox]:
    made = OnSandbox(sandbox, folder)
    try:
        yield made
    finally:
        made.slurm.cancel(each.job_id for each in made.run.submissions())
        sandbox.wait_idle()


@pytest.fixture
def made(slurm_sandbox: Sandbox, cluster_dir: Path) -> Iterator[OnSandbox]:
    with run_on(slurm_sandbox, cluster_dir) as made:
        yield made


@pytest.fixture
def forgotten(forgetful_sandbox: Sandbox, cluster_dir: Path) -> Iterator[OnSandbox]:
    with run_on(forgetful_sandbox, cluster_dir) as made:
        yield made


def test_from_waiting_to_running_to_saved_and_cancelled(made: OnSandbox) -> None:
    job_id = made.send(SAVES, "--nodes=2", "--begin=now+1hour")
    found = made.reaches("pending")
    assert "its earliest start has not come yet" in found.reason  # Slurm's BeginTime
    assert found.reason.startswith(f"job {job_id} waits in partition gpu for attempt 1: ")

    made.sandbox.run(["scontrol", "update", f"JobId={job_id}", "StartTime=now"])
    found = made.reaches("starting")
    assert "its attempt has not shown itself yet" in found.reason

    made.attempt(job_id, ago=1, nodes=2, progress=searching(best=0.5, RUNNING=2))
    found = made.reaches("running")
    assert found.reason.startswith(f"attempt 1 runs in job {job_id} on iris-[")
    assert found.time_left is not None
    assert 500 < found.time_left <= 600
    assert [node.state for node in found.nodes] == ["missing", "missing"]
    assert all(node.name.startswith("iris-") for node in found.nodes)  # named by Slurm
    (listed,) = list_all(made.run.path.parent, slurm=made.slurm).runs
    assert (listed.state, listed.job and listed.job.state.value) == ("running", "RUNNING")

    begun = time.monotonic()
    done = made.command("cancel")
    assert time.monotonic() - begun < 15
    assert done.returncode == 0, done.stderr
    assert f"asked attempt 1 in job {job_id} to save" in done.stdout
    assert f"cancelled: job {job_id} after " in done.stdout
    assert "its attempt is interrupted: asked to stop; the state is saved" in done.stdout
    assert made.run.job_log(job_id).read_text() == "saving\n"  # it was not killed
    found = made.status()
    assert (found.state, found.over) == ("cancelled", True)
    assert found.jobs[0].state.value == "COMPLETED"
    assert found.trials == {"INTERRUPTED": 2}
    shown = json.loads(made.command("status", "--json").stdout)
    assert (shown["state"], shown["next"]) == ("cancelled", [f"hpc-tune resume {made.run.path}"])


def test_cancel_ends_what_does_not_listen_and_what_waits(made: OnSandbox) -> None:
    deaf = made.send("sleep 300")
    made.reaches("starting")
    made.attempt(deaf, ago=1, progress=searching(RUNNING=2))
    waiting = made.send("sleep 300", f"--dependency=afterany:{deaf}")
    done = cancel(made.run, wait=2, slurm=made.slurm)
    assert (done.running, done.waiting, done.outcome, done.left) == ((deaf,), (waiting,), None, ())
    states = made.slurm.jobs([deaf, waiting])
    assert {job.state.value for job in states.values()} == {"CANCELLED"}
    found = made.status()
    assert (found.state, found.reason.partition(" by ")[0]) == ("cancelled", f"job {waiting} was cancelled")
    assert found.attempts[0].state == "cancelled"
    assert cancel(made.run, slurm=made.slurm).is_nothing


def test_how_jobs_end_without_a_word(made: OnSandbox) -> None:
    job_id = made.send("exit 3")
    assert made.reaches("failed").reason.startswith(f"job {job_id} ended before its attempt began: ")
    job_id = made.send("sleep 300")
    made.reaches("starting")
    made.attempt(job_id, ago=1, progress=searching(RUNNING=2, TERMINATED=1))
    assert made.status().state == "running"
    made.sandbox.run(["scancel", job_id])  # not by us: Slurm knows
    found = made.reaches("cancelled")
    assert found.reason.startswith(f"job {job_id} ended without a word: ")
    assert found.trials == {"INTERRUPTED": 2, "TERMINATED": 1}


def test_a_requeued_job_waits_and_starts_again(made: OnSandbox) -> None:
    job_id = made.send("sleep 300", "--requeue")
    made.reaches("starting")
    attempt = made.attempt(job_id, ago=1, progress=searching(RUNNING=2))
    assert made.status().state == "running"
    made.sandbox.run(["scontrol", "requeue", job_id])
    found = made.reaches("pending")
    assert found.trials == {"INTERRUPTED": 2}
    assert found.attempts[0].reason == f"Slurm ended job {job_id} and queued it again before it could save"
    found = made.reaches("starting", seconds=90)
    assert attempt.outcome() is None
    assert found.attempts[0].state == "interrupted"
    made.attempt(job_id, restart=1, ago=0, progress=searching(RUNNING=1))
    found = made.status()
    assert (found.state, [str(each.state) for each in found.attempts]) == ("running", ["interrupted", "running"])


def test_follow_shows_a_job_from_its_start_to_its_end(made: OnSandbox) -> None:
    script = """\
cd {run}; mkdir -p attempts/001
job='{{"job_id": "'$SLURM_JOB_ID'"}}'
echo '{{"kind": "slurm", "host": "x", "cpus": 1, "gpus": 0, "started": '$(date +%s)', "job": '$job'}}' \
  > attempts/001/attempt.json
echo batch; for i in 1 2 3; do echo driver $i >> attempts/001/driver.log; sleep 0.5; done
echo '{{"ending": "completed", "reason": "all trials have ended"}}' > attempts/001/outcome.json
"""
    job_id = made.send(script)
    done = made.command("logs", "--follow")
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if not line.startswith("==>")]
    assert sorted(lines) == ["batch", "driver 1", "driver 2", "driver 3"]
    assert f"==> batch log of job {job_id}: " in done.stdout
    assert made.command("status", "--watch", "0.5").stdout.startswith(f"{made.run.name}: completed\n")


# ------------------------------------------------------------------------------- what Slurm does not know


def test_a_forgotten_job_is_never_taken_for_completed(forgotten: OnSandbox) -> None:
    made = forgotten
    unseen = made.send("true")
    wait_until(lambda: "UNKNOWN" in states(made, unseen), "Slurm has forgotten the job", 90)
    found = made.status()
    assert (found.state, found.over) == ("unknown", True)
    assert found.reason.startswith(f"job {unseen} has left no record: ")
    made.attempt(unseen, ago=90, progress=searching(RUNNING=1, TERMINATED=3), seen=60)
    found = made.status()
    assert (found.state, found.trials) == ("interrupted", {"INTERRUPTED": 1, "TERMINATED": 3})
    assert found.next == (f"hpc-tune resume {made.run.path}",)
    assert made.command("list").stdout.splitlines()[1].split()[1] == "interrupted"


def states(made: OnSandbox, *job_ids: str) -> set[str]:
    return {job.state.value for job in made.slurm.jobs(job_ids).values()}


def test_a_cancelled_run_stays_cancelled_when_slurm_has_forgotten_it(forgotten: OnSandbox) -> None:
    made = forgotten
    job_id = made.send("sleep 300", "--begin=now+1hour")
    made.reaches("pending")
    assert cancel(made.run, slurm=made.slurm).waiting == (job_id,)
    wait_until(lambda: "UNKNOWN" in states(made, job_id), "Slurm has forgotten the job", 90)
    found = made.status()
    assert (found.state, found.next) == ("cancelled", (f"hpc-tune resume {made.run.path}",))


@pytest.fixture
def told(new_state_dir: Callable[[str], Path], cluster_dir: Path) -> Iterator[OnSandbox]:
    """A run on a sandbox whose squeue forgets, and whose accounting does not."""
    config = SandboxConfig(state_dir=new_state_dir("told"), nodes=1, cpus=2, gpus=0, min_job_age=2, accounting=True)
    for sandbox in running(config):
        with run_on(sandbox, cluster_dir) as made:
            yield made


def test_accounting_tells_how_a_forgotten_job_ended(told: OnSandbox) -> None:
    job_id = told.send("exit 3")
    squeue = ["squeue", "--noheader", "--states=all", f"--jobs={job_id}"]
    wait_until(lambda: not told.sandbox.run(squeue, check=False).stdout.strip(), "squeue has forgotten the job", 90)
    found = told.status()
    assert (found.state, found.jobs[0].state.value) == ("failed", "FAILED")


def test_slurmctld_is_down(forgotten: OnSandbox, forgetful_sandbox: Sandbox) -> None:
    made = forgotten
    job_id = made.send("sleep 300")
    made.reaches("starting")
    made.attempt(job_id, ago=1, progress=searching(best=0.5, RUNNING=2, TERMINATED=1))
    with slurmctld_down(forgetful_sandbox):
        shown = made.command("status")
        assert shown.returncode == 0, shown.stderr
        assert "note      Slurm could not be asked (" in shown.stdout
        assert "1 finished, 2 running of 8" in shown.stdout
        assert "accuracy 0.5" in shown.stdout
        listed = made.command("list")
        assert listed.returncode == 0
        assert "note: Slurm could not be asked" in listed.stdout
        assert made.command("logs", "--batch").returncode == 0
        refused = made.command("cancel")
        assert (refused.returncode, refused.stdout) == (4, "")
        assert "Traceback" not in refused.stderr
        assert not made.run.cancel_file(job_id).exists()
    found = made.reaches("running")
    assert found.notes == ()


@contextmanager
def slurmctld_down(sandbox: Sandbox) -> Iterator[None]:
    daemons = Daemons(Layout(sandbox.config.state_dir), sandbox.config)
    sandbox.run(["scontrol", "shutdown", "slurmctld"])  # in peace: killed, it forgets what it has not saved yet
    wait_until(lambda: not daemons.is_alive("slurmctld"), "the end of slurmctld", 30)
    daemons.end("slurmctld")
    try:
        yield
    finally:
        daemons.start_slurmctld()
        answers = ["scontrol", "ping"]
        wait_until(lambda: "UP" in sandbox.run(answers, check=False).stdout, "slurmctld answers", 60)
