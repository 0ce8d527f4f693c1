"""Follow-ups: how they stand by their records and Slurm's word, what their jobs ask for, when they may begin."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.attempt import Submission
from hpc_tune.errors import ExperimentError, UsageError
from hpc_tune.experiment.spec import TrialResources
from hpc_tune.followup import FollowUp, FollowUpOutcome, FollowUpRecord
from hpc_tune.operations.cancel import cancel
from hpc_tune.operations.followup_jobs import start, wait
from hpc_tune.operations.followup_request import submitit_parameters
from hpc_tune.operations.perform import perform
from hpc_tune.operations.status import status
from hpc_tune.operations.tasks import collect_task
from hpc_tune.site import Environment, Partition, Site, as_toml
from hpc_tune.slurm.client import Slurm
from hpc_tune.slurm.states import JobState
from tests.unit.made_runs import FakeSlurm, MadeRun, ended, searching

SITE = Site(
    name="hpc",
    partition="gpu",
    account="ours",
    partitions={
        "gpu": Partition(cpus_per_node=28, gpus_per_node=4, max_time=1800),
        "cpu": Partition(cpus_per_node=64, gpus_per_node=0),
    },
    environment=Environment(modules=["lang/Python"], venv="/home/ada/venv"),
    sbatch={"mail-type": "END"},
)


@pytest.fixture
def made(project: Any, runs_dir: Path) -> MadeRun:
    return MadeRun(project.create_run(runs_dir, num_samples=8, evaluate="train.py:train", allocation={"site": "hpc"}))


@pytest.fixture(autouse=True)
def _site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "config/hpc-tune/sites"
    folder.mkdir(parents=True)
    (folder / "hpc.toml").write_text(as_toml(SITE))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def follow(made: MadeRun, job_id: str | None, *, executor: Any = "slurm", after: bool = False) -> FollowUp:
    path = str(made.run.path)
    followup = FollowUp.create(made.run.path, "collect")
    FollowUpRecord(
        "collect", executor, socket.gethostname(), time.time(), (path,), (path,) if after else ()
    ).write(followup.record_file)  # fmt: skip
    if job_id is not None:
        followup.put_on_record(Submission(job_id, "", time.time(), "submit"))
    return followup


@pytest.mark.parametrize(
    ("state", "expected", "reason"),
    [
        (JobState.PENDING, "waiting", "job 9: it waits for another job to end"),
        (JobState.RUNNING, "running", "job 9 on iris-169"),
        (JobState.TIMEOUT, "failed", "job 9 ended without a word: Slurm says TIMEOUT"),
        (None, "unknown", "Slurm could not be asked"),
    ],
)
def test_slurm_says_how_a_job_stands_that_has_no_outcome(
    made: MadeRun, state: JobState | None, expected: str, reason: str
) -> None:
    follow(made, "9")
    slurm = FakeSlurm(silent=None if state else "slurmctld is down")
    if state:
        why = "it waits for another job to end" if state.is_pending else ""
        slurm.has("9", state, node_list="iris-169", reason=why)
    (found,) = status(made.run, slurm=slurm).followups
    assert (found.state, found.job_id) == (expected, "9")
    assert reason in found.reason


def test_one_question_is_for_the_run_and_its_follow_ups(made: MadeRun) -> None:
    made.submitted("7")
    follow(made, "8")
    done = follow(made, "9")
    FollowUpOutcome(False, 1.0, 3.0, "no such class").write(done.outcome_file)
    slurm = FakeSlurm().has("7", JobState.RUNNING).has("8", JobState.PENDING)
    now = status(made.run, slurm=slurm)
    assert slurm.asked == [["7", "8"]]
    assert [job.job_id for job in now.jobs] == ["7"], "a follow-up is no job of the run"
    assert [(each.state, each.reason) for each in now.followups] == [("waiting", "job 8"), ("failed", "no such class")]


def test_a_process_of_this_machine(made: MadeRun) -> None:
    follow(made, str(os.getpid()), executor="local")
    follow(made, "4194304", executor="local")
    alive, gone = status(made.run, slurm=FakeSlurm()).followups
    assert (alive.state, gone.state, gone.reason) == ("running", "failed", "process 4194304 is gone without a word")


def test_cancel_ends_what_waits_for_the_run(made: MadeRun) -> None:
    made.submitted("7")
    follow(made, "8")
    slurm = FakeSlurm().has("7", JobState.PENDING).has("8", JobState.PENDING)
    done = cancel(made.run, now=True, slurm=slurm, sleep=lambda seconds: None)
    assert (done.waiting, done.followups, slurm.cancelled) == (("7",), ("001-collect",), ["7", "8"])
    (found,) = status(made.run, slurm=slurm).followups
    assert found.state == "cancelled"


def test_a_job_asks_for_what_a_trial_needs_where_the_runs_jobs_go(made: MadeRun) -> None:
    needs = TrialResources(cpus=7, gpus=0.5)
    asked = submitit_parameters("evaluate", made.run, needs, ["allocation.qos=low"], Slurm())
    assert (asked["partition"], asked["account"], asked["qos"]) == ("gpu", "ours", "low")
    assert (asked["nodes"], asked["cpus_per_task"], asked["gres"], asked["time"]) == (1, 7, "gpu:1", 30)
    assert asked["additional_parameters"] == {"mail-type": "END"}
    assert "module load lang/Python" in asked["setup"]
    assert asked["job_name"] == f"{made.run.name}-evaluate"
    light = submitit_parameters("report", made.run, TrialResources(), ["allocation.partition=cpu"], Slurm())
    assert (light["gres"], light["cpus_per_task"], light["time"]) == (None, 1, 60)
    optional = TrialResources(gpus=1, gpu_optional=True)
    assert submitit_parameters("evaluate", made.run, optional, ["allocation.partition=cpu"], Slurm())["gres"] is None


def test_what_the_site_does_not_have_is_refused_with_the_option(made: MadeRun) -> None:
    with pytest.raises(ExperimentError, match=r"allocation\.time: at most 00:30:00 .*use --time 00:30:00"):
        submitit_parameters("report", made.run, TrialResources(), ["allocation.time=2h"], Slurm())
    with pytest.raises(ExperimentError, match=r"allocation\.tme: unknown key; did you mean 'time'"):
        submitit_parameters("report", made.run, TrialResources(), ["allocation.tme=2h"], Slurm())


class Sent:
    """Stands in for what sends a follow-up again."""

    def __init__(self) -> None:
        self.after: list[str] = []

    def __call__(self, followup: FollowUp, record: FollowUpRecord, jobs: list[str], slurm: Any) -> None:
        self.after = jobs


def test_a_run_that_goes_on_is_waited_for_again(made: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Sent()
    monkeypatch.setattr("hpc_tune.operations.perform.send_again", sent)
    made.attempt("7", progress=searching(RUNNING=1), outcome=ended("interrupted", "the walltime is near"))
    made.submitted("7", ago=50)
    followup = follow(made, "9", after=True)
    slurm: Any = FakeSlurm().has("7", JobState.COMPLETING).has("9", JobState.RUNNING)
    pauses = []

    def successor_comes(seconds: float) -> None:
        pauses.append(seconds)
        made.submitted("8", by="successor")
        slurm.has("8", JobState.PENDING)

    assert perform(followup, slurm=slurm, sleep=successor_comes) is None
    assert (sent.after, len(pauses), followup.outcome()) == (["8"], 1, None)

    slurm.has("7", JobState.COMPLETED).has("8", JobState.COMPLETED)
    made.attempt("8", progress=searching(TERMINATED=8), outcome=ended("completed", "all trials have ended"))
    outcome = perform(followup, slurm=slurm)
    assert outcome is not None
    assert outcome.ok, outcome.reason
    assert str(made.run.path / "trials.csv") in outcome.result["files"]


def test_slurm_cannot_wait_for_a_run_without_it(made: MadeRun) -> None:
    made.attempt(None, ago=1)  # begins
    slurm: Any = FakeSlurm()
    with pytest.raises(UsageError, match="Slurm cannot wait for"):
        start(collect_task([made.run], after=[made.run]), "slurm", slurm=slurm)
    assert FollowUp.of_run(made.run.path) == []


def test_who_waits_looks_again_before_a_missing_outcome_counts(made: MadeRun) -> None:
    followup = follow(made, "9")
    slurm = FakeSlurm().has("9", JobState.COMPLETED)

    def outcome_arrives(seconds: float) -> None:
        FollowUpOutcome(True, 1.0, 2.0).write(followup.outcome_file)

    assert wait(followup, slurm=slurm, sleep=outcome_arrives).state == "done"
    lost = follow(made, "10")
    slurm.has("10", JobState.FAILED)
    assert wait(lost, slurm=slurm, sleep=lambda seconds: None).state == "failed"
