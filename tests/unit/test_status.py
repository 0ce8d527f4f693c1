"""How a run stands: the join of its records with Slurm's word, in every combination that occurs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.errors import SlurmError
from hpc_tune.operations.facts import Patient
from hpc_tune.operations.status import RunStatus, status, watch
from hpc_tune.run import RunDir
from hpc_tune.slurm.nodelist import expand_nodes
from hpc_tune.slurm.states import JobState
from tests.unit.made_runs import NODES, FakeSlurm, MadeRun, age, ended, searching

SILENT = "slurmctld did not answer within 10 s"


@pytest.fixture
def made(project: Any, runs_dir: Path) -> MadeRun:
    return MadeRun(project.create_run(runs_dir, num_samples=8))


@contextmanager
def at_work(run: RunDir) -> Iterator[int]:
    """Have another process of this machine hold the run, as a driver does."""
    code = (
        "import sys; from pathlib import Path; from hpc_tune.run import RunDir\n"
        "with RunDir(Path(sys.argv[1])).locked():\n    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process.pid
        process.kill()


def word(found: RunStatus) -> tuple[str, bool, bool]:
    return str(found.state), found.live, found.over


# ------------------------------------------------------------------------------- before the first attempt


def test_a_run_that_nobody_has_started(made: MadeRun) -> None:
    slurm = FakeSlurm()
    found = status(made.run, slurm=slurm)
    assert word(found) == ("created", False, True)
    assert slurm.asked == []  # no job, no question
    assert (found.total, found.trials, found.best, found.attempts) == (8, {}, None, ())
    assert found.next == (f"hpc-tune resume {made.run.path}",)
    made.run.job_script.touch()
    assert status(made.run, slurm=slurm).next == (f"sbatch {made.run.job_script}",)


def test_a_grid_counts_before_a_driver_has(project: Any, runs_dir: Path) -> None:
    space = {"a": {"grid": [1, 2, 3]}, "deep": {"b": {"grid": [1, 2]}, "c": {"uniform": [0, 1]}}}
    run = project.create_run(runs_dir, num_samples=5, space=space)
    assert (
        status(run, slurm=FakeSlurm()).total == 30 == project.load(num_samples=5, space=space).experiment.total_trials
    )


def test_a_job_that_waits(made: MadeRun) -> None:
    made.submitted("12", ago=60)
    start = time.time() + 7201
    reason = "other jobs have a higher priority"
    slurm = FakeSlurm().has("12", JobState.PENDING, reason=reason, partition="gpu", start=start)
    found = status(made.run, slurm=slurm)
    assert word(found) == ("pending", True, False)
    assert (
        found.reason
        == f"job 12 waits in partition gpu for attempt 1: {reason}; Slurm expects it to start in 2 h 00 min"
    )
    assert [job.job_id for job in found.jobs] == ["12"]
    assert slurm.asked == [["12"]]
    assert found.next == (f"hpc-tune logs {made.run.path} --follow", f"hpc-tune cancel {made.run.path}")


def test_a_job_whose_attempt_has_not_shown_itself(made: MadeRun) -> None:
    made.submitted("12")
    slurm = FakeSlurm().has("12", JobState.RUNNING, node_list="iris-[169-172]", start=time.time() - 3)
    found = status(made.run, slurm=slurm)
    assert word(found) == ("starting", True, False)
    assert found.reason.startswith("job 12 began 3.")
    assert found.reason.endswith("on iris-[169-172]; its attempt has not shown itself yet")


@pytest.mark.parametrize(
    ("state", "expected", "reason"),
    [
        (JobState.FAILED, "failed", "job 12 ended before its attempt began: its script failed"),
        (JobState.TIMEOUT, "failed", "job 12 ended before its attempt began: it reached its time limit"),
        (JobState.COMPLETED, "failed", "job 12 ended before its attempt began: its script came to its end"),
        (JobState.CANCELLED, "cancelled", "job 12 ended before its attempt began: it was cancelled"),
        (JobState.UNKNOWN, "unknown", "job 12 has left no record: Slurm does not know it any more"),
    ],
)
def test_a_job_that_ended_before_its_attempt(made: MadeRun, state: JobState, expected: str, reason: str) -> None:
    made.submitted("12")
    found = status(made.run, slurm=FakeSlurm().has("12", state))
    assert (word(found), found.reason) == ((expected, False, True), reason)
    assert f"hpc-tune resume {made.run.path}" in found.next


def test_a_run_whose_trials_all_failed_is_resumed_with_them(made: MadeRun) -> None:
    made.attempt(outcome=replace(ended("failed", "all 8 trials failed"), exit_code=5))
    assert status(made.run, slurm=FakeSlurm()).next == (
        f"hpc-tune doctor {made.run.path}",
        f"hpc-tune resume {made.run.path} --retry-errors",
    )


def test_a_sent_job_while_slurm_is_silent(made: MadeRun) -> None:
    made.submitted("12", ago=60)
    found = status(made.run, slurm=FakeSlurm(silent=SILENT))
    assert word(found) == ("unknown", False, False)
    assert found.reason == "job 12 was sent 1 min 00 s ago and has left no record yet; Slurm could not be asked"
    assert found.notes == (f"Slurm could not be asked ({SILENT}); this is what the run's own files say",)


def test_a_waiting_job_that_was_cancelled_is_cancelled_also_without_sacct(made: MadeRun) -> None:
    made.submitted("12")
    made.cancelled("12")
    for slurm in (FakeSlurm(), FakeSlurm(silent=SILENT)):
        found = status(made.run, slurm=slurm)
        assert found.state == "cancelled"
        assert found.reason == "job 12 was cancelled by ada on login1 before it began"
        assert found.next == (f"hpc-tune resume {made.run.path}",)


# ------------------------------------------------------------------------------- while an attempt is at work


def test_an_attempt_at_work_in_a_job(made: MadeRun) -> None:
    made.submitted("12", ago=200)
    made.attempt("12", progress=searching(best=0.9, RUNNING=4, TERMINATED=2, PENDING=2))
    now = time.time()
    slurm = FakeSlurm().has("12", JobState.RUNNING, node_list="iris-169", start=now - 100, end=now + 600, time_left=1.0)
    found = status(made.run, slurm=slurm)
    assert word(found) == ("running", True, False)
    assert found.reason == "attempt 1 runs in job 12 on iris-169"
    assert found.trials == {"RUNNING": 4, "TERMINATED": 2, "PENDING": 2}
    assert found.best is not None
    assert found.best.value == 0.9
    assert found.time_left == pytest.approx(600, abs=5)  # by the end, since the answer may be half a minute old
    assert [(each.number, each.state, each.ended) for each in found.attempts] == [(1, "running", None)]


@pytest.mark.parametrize(
    ("phase", "expected", "what"),
    [("starting", "starting", "starts"), ("running", "running", "runs"), ("ending", "running", "saves and ends")],
)
def test_the_phases_of_a_search(made: MadeRun, phase: str, expected: str, what: str) -> None:
    made.attempt("12", progress=searching(phase=phase))
    found = status(made.run, slurm=FakeSlurm().has("12", JobState.RUNNING))
    assert (found.state, found.reason) == (expected, f"attempt 1 {what} in job 12 on its nodes")


@pytest.mark.parametrize("state", [JobState.SUSPENDED, JobState.COMPLETING])
def test_slurm_does_something_else_with_the_job(made: MadeRun, state: JobState) -> None:
    made.attempt("12", progress=searching(RUNNING=1))
    found = status(made.run, slurm=FakeSlurm().has("12", state))
    assert found.live
    assert f"Slurm has it {state.value.lower()}" in found.reason


def test_a_requeued_job_that_waits_again(made: MadeRun) -> None:
    made.submitted("12", ago=900)
    made.attempt("12", ago=800, progress=searching(RUNNING=3, PAUSED=1, TERMINATED=1), seen=120)
    found = status(made.run, slurm=FakeSlurm().has("12", JobState.PENDING, reason="it was requeued"))
    assert word(found) == ("pending", True, False)
    assert "for attempt 2: it was requeued" in found.reason
    assert found.trials == {"TERMINATED": 1, "INTERRUPTED": 4}  # what the dead driver called running and paused
    assert found.attempts[0].state == "interrupted"
    assert found.attempts[0].reason == "Slurm ended job 12 and queued it again before it could save"


def test_a_requeued_job_that_runs_again(made: MadeRun) -> None:
    made.attempt("12", ago=800, progress=searching(RUNNING=3), seen=300)
    slurm = FakeSlurm().has("12", JobState.RUNNING, start=time.time() - 20)
    assert status(made.run, slurm=slurm).state == "starting"
    made.attempt("12", restart=1, ago=19, progress=searching(RUNNING=3, TERMINATED=1))
    found = status(made.run, slurm=slurm)
    assert found.state == "running"
    assert found.trials == {"RUNNING": 3, "TERMINATED": 1}
    assert [(each.state, each.restart_count) for each in found.attempts] == [("interrupted", 0), ("running", 1)]
    assert found.attempts[0].reason == "Slurm ended job 12 and started it again before it could save"
    assert found.attempts[1].gap == pytest.approx(281, abs=3)
    assert found.attempts[1].finished == 1


def test_a_live_attempt_counts_whatever_a_skewed_clock_says(made: MadeRun) -> None:
    """The head node's clock is ten minutes behind: the attempt seems older than its job."""
    made.attempt("12", ago=600, progress=searching(RUNNING=3), seen=1)
    found = status(made.run, slurm=FakeSlurm().has("12", JobState.RUNNING, start=time.time() - 30))
    assert found.state == "running"


def test_a_successor_waits_while_the_attempt_is_at_work(made: MadeRun) -> None:
    made.submitted("12", ago=200)
    made.attempt("12", progress=searching(RUNNING=1))
    made.submitted("13", by="successor")
    slurm = FakeSlurm().has("12", JobState.RUNNING).has("13", JobState.PENDING, reason="it depends on another job")
    found = status(made.run, slurm=slurm)
    assert found.state == "running"
    assert [job.job_id for job in found.jobs] == ["12", "13"]


def test_an_attempt_that_has_ended_in_a_job_that_has_not(made: MadeRun) -> None:
    made.attempt("12", outcome=ended("completed", "all trials have ended"))
    assert word(status(made.run, slurm=FakeSlurm())) == ("completed", False, True)  # nobody asks: it says all itself
    made.attempt("13", outcome=ended("interrupted", "the walltime is near"))
    found = status(made.run, slurm=FakeSlurm().has("13", JobState.RUNNING, start=time.time() - 90))
    assert word(found) == ("interrupted", True, False)
    assert found.reason == "the walltime is near; job 13 is not over yet"


def test_slurm_is_silent_but_the_driver_shows_life(made: MadeRun) -> None:
    attempt = made.attempt("12", progress=searching(RUNNING=3, TERMINATED=1))
    slurm = FakeSlurm(silent=SILENT)
    found = status(made.run, slurm=slurm)
    assert word(found) == ("running", True, False)
    assert "a sign of life 0." in found.reason
    assert found.trials["RUNNING"] == 3
    age(attempt.progress_file, 300)
    found = status(made.run, slurm=slurm)
    assert word(found) == ("unknown", False, False)
    assert found.reason == "its last sign of life is 5 min 00 s old; Slurm could not be asked"
    assert SILENT in found.notes[0]


# ------------------------------------------------------------------------------- after an attempt


@pytest.mark.parametrize("ending", ["completed", "interrupted", "failed"])
@pytest.mark.parametrize("slurm", [FakeSlurm(), FakeSlurm(silent=SILENT)], ids=["forgotten", "silent"])
def test_its_own_outcome_decides(made: MadeRun, ending: str, slurm: FakeSlurm) -> None:
    made.submitted("12", ago=200)
    made.attempt("12", progress=searching(TERMINATED=7, RUNNING=1), outcome=ended(ending, "for this reason"))
    found = status(made.run, slurm=slurm)
    assert (found.state, found.reason, found.live) == (ending, "for this reason", False)
    assert found.trials == {"TERMINATED": 7, "INTERRUPTED": 1}
    assert found.over is (slurm.silent is None or ending == "completed")  # a silent Slurm may hold the next attempt


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (JobState.TIMEOUT, "interrupted"),
        (JobState.PREEMPTED, "interrupted"),
        (JobState.NODE_FAIL, "interrupted"),
        (JobState.COMPLETED, "interrupted"),
        (JobState.UNKNOWN, "interrupted"),
        (JobState.CANCELLED, "cancelled"),
        (JobState.FAILED, "failed"),
        (JobState.OUT_OF_MEMORY, "failed"),
        (JobState.DEADLINE, "failed"),
    ],
)
def test_without_an_outcome_it_is_never_completed(made: MadeRun, state: JobState, expected: str) -> None:
    made.attempt("12", progress=searching(TERMINATED=7, RUNNING=1), seen=400)
    found = status(made.run, slurm=FakeSlurm().has("12", state))
    assert word(found) == (expected, False, True)
    assert found.reason.startswith("job 12 ")
    assert found.attempts[0].state == expected
    assert f"hpc-tune resume {made.run.path}" in found.next


def test_slurms_own_sentence_about_the_end_is_kept(made: MadeRun) -> None:
    made.attempt("12", progress=searching(), seen=400)
    found = status(made.run, slurm=FakeSlurm().has("12", JobState.FAILED, reason="it ended with exit code 3"))
    assert found.reason == "job 12 ended without a word: it ended with exit code 3"


def test_cancelled_is_told_from_interrupted_and_failed(made: MadeRun) -> None:
    made.attempt("12", outcome=ended("interrupted", "stopped by a marker; the state is saved"))
    made.run.jobs_dir.mkdir()
    made.cancelled("12")
    found = status(made.run, slurm=FakeSlurm())
    assert found.state == found.attempts[0].state == "cancelled"
    assert found.reason == "cancelled by ada on login1: stopped by a marker; the state is saved"
    made.attempt("13", progress=searching(), seen=400)
    made.cancelled("13")
    assert status(made.run, slurm=FakeSlurm().has("13", JobState.FAILED)).state == "cancelled"
    made.attempt("14", outcome=ended("completed", "all trials have ended"))
    made.cancelled("14")
    assert status(made.run, slurm=FakeSlurm()).state == "completed"  # it was quicker


def test_a_resume_after_a_cancellation_is_a_new_story(made: MadeRun) -> None:
    made.submitted("12", ago=300)
    made.attempt("12", ago=200, outcome=ended("interrupted", "stopped", ago=100))
    made.cancelled("12")
    made.submitted("13", by="resume")
    assert status(made.run, slurm=FakeSlurm().has("13", JobState.PENDING)).state == "pending"


def test_the_story_attempt_by_attempt(made: MadeRun) -> None:
    made.attempt(
        ago=1000, progress=searching(TERMINATED=2, RUNNING=2), outcome=ended("interrupted", "walltime", ago=800)
    )
    made.attempt(ago=790, progress=searching(best=0.7, TERMINATED=4, ERROR=1), outcome=ended("failed", "disk", ago=500))
    made.attempt(ago=400, outcome=ended("interrupted", "no Ray", ago=390))
    found = status(made.run, slurm=FakeSlurm())
    told = [(each.number, each.state, each.reason, each.finished) for each in found.attempts]
    assert told == [(1, "interrupted", "walltime", 2), (2, "failed", "disk", 3), (3, "interrupted", "no Ray", 0)]
    assert [round(each.gap) if each.gap else None for each in found.attempts] == [None, 10, 100]
    assert [round((each.ended or 0) - (each.started or 0)) for each in found.attempts] == [200, 290, 10]
    assert found.best is not None
    assert found.trials == {"TERMINATED": 4, "ERROR": 1}  # the last attempt saw no trial: the one before it counts


def test_the_best_is_that_of_all_attempts(project: Any, runs_dir: Path) -> None:
    made = MadeRun(project.create_run(runs_dir, mode="min"))
    for value in (0.3, 0.1, 0.2, float("nan")):
        made.attempt(progress=searching(best=value), outcome=ended("interrupted", "again"))
    found = status(made.run, slurm=FakeSlurm())
    assert found.best is not None
    assert found.best.value == 0.1


def test_tables_and_what_comes_next(made: MadeRun) -> None:
    made.attempt(outcome=ended("completed", "all trials have ended"))
    assert status(made.run, slurm=FakeSlurm()).next == (f"hpc-tune collect {made.run.path}",)
    (made.run.path / "trials.csv").touch()
    found = status(made.run, slurm=FakeSlurm())
    assert (found.next, found.tables) == ((), (made.run.path / "trials.csv",))


# ------------------------------------------------------------------------------- without Slurm


def test_a_live_run_on_this_machine(made: MadeRun) -> None:
    made.attempt(progress=searching(RUNNING=2))
    slurm = FakeSlurm()
    with at_work(made.run) as pid:
        found = status(made.run, slurm=slurm)
        assert word(found) == ("running", True, False)
        assert found.reason.startswith(f"attempt 1 runs: process {pid} on ")
        assert found.trials == {"RUNNING": 2}
    found = status(made.run, slurm=slurm)
    assert word(found) == ("interrupted", False, True)
    assert found.reason == "the driver of attempt 1 is gone without a word"
    assert found.trials == {"INTERRUPTED": 2}
    assert found.attempts[0].reason == "its driver is gone without a word"
    assert slurm.asked == []


def test_a_driver_that_has_not_said_yet_that_it_is_at_work(made: MadeRun) -> None:
    made.attempt(ago=2)
    assert word(status(made.run, slurm=FakeSlurm())) == ("starting", True, False)
    made.attempt(ago=20)
    assert status(made.run, slurm=FakeSlurm()).state == "interrupted"
    bare = made.run.new_attempt()  # killed between making the folder and writing the record
    assert status(made.run, slurm=FakeSlurm()).state == "starting"
    age(bare.path, 60)
    assert status(made.run, slurm=FakeSlurm()).state == "interrupted"


def test_a_local_attempt_after_a_forgotten_job(made: MadeRun) -> None:
    made.submitted("12", ago=500)
    made.attempt(ago=100, outcome=ended("completed", "all trials have ended"))
    slurm = FakeSlurm()
    assert status(made.run, slurm=slurm).state == "completed"
    assert slurm.asked == []


# ------------------------------------------------------------------------------- nodes and phases


def test_nodes_that_failed_or_did_not_come_are_named(made: MadeRun) -> None:
    attempt = made.attempt("12", nodes=4, names=NODES, progress=searching(RUNNING=1))
    made.node(attempt, "iris-169", 0, "up", up=time.time())
    made.node(attempt, "iris-170", 1, "failed", reason="/tmp has 3 MB free", log="x")
    made.node(attempt, "iris-171", 2, "starting")
    found = status(made.run, slurm=FakeSlurm().has("12", JobState.RUNNING))
    assert found.nodes_asked == 4
    assert [(node.name, node.state, node.reason) for node in found.nodes] == [
        ("iris-169", "up", ""),
        ("iris-170", "failed", "/tmp has 3 MB free"),
        ("iris-171", "starting", ""),
        ("iris-172", "missing", "its agent has not shown itself yet"),
    ]
    assert found.nodes[1].log == attempt.node_log("iris-170")
    attempt.end(ended("failed", "3 nodes were needed"))
    found = status(made.run, slurm=FakeSlurm().has("12", JobState.FAILED))
    assert (found.nodes[2].state, found.nodes[2].reason) == ("failed", "it did not join before the attempt ended")
    assert found.nodes[3].reason == "its agent has not shown itself"


def test_missing_nodes_are_named_by_slurm_where_the_record_cannot(made: MadeRun) -> None:
    attempt = made.attempt("12", nodes=3)
    made.node(attempt, "iris-169", 0, "up", up=time.time())
    slurm = FakeSlurm().has("12", JobState.RUNNING, node_list="iris-[169-171]")
    assert [node.name for node in status(made.run, slurm=slurm).nodes] == ["iris-169", "iris-170", "iris-171"]
    assert [node.name for node in status(made.run, slurm=FakeSlurm(silent=SILENT)).nodes] == ["iris-169", "?", "?"]


@pytest.mark.parametrize(
    ("abbreviated", "names"),
    [
        ("", []),
        ("iris-169", ["iris-169"]),
        ("iris-[169-171,180]", ["iris-169", "iris-170", "iris-171", "iris-180"]),
        ("aion-[0009-0010],iris-1", ["aion-0009", "aion-0010", "iris-1"]),
        ("r[1-2]n[01,03]", ["r1n01", "r1n03", "r2n01", "r2n03"]),
    ],
)
def test_node_lists(abbreviated: str, names: list[str]) -> None:
    assert expand_nodes(abbreviated) == names


def test_phases_are_seconds_from_the_start_of_the_job(made: MadeRun) -> None:
    began = time.time() - 100
    attempt = made.attempt("12", nodes=2, names=NODES[:2], ago=100)
    for rank, name in enumerate(NODES[:2]):
        made.node(attempt, name, rank, "up", up=began + 3 + rank)
    progress = searching(RUNNING=1)
    progress.phases.update(driver_up=began + 5, first_trial=began + 6, first_result=began + 9)
    progress.write(attempt.progress_file)
    found = status(made.run, slurm=FakeSlurm().has("12", JobState.RUNNING))
    rounded = {name: round(seconds) for name, seconds in found.phases.items()}
    assert rounded == {
        **{"iris-169 up": 3, "iris-170 up": 4, "nodes_up": 4},
        **{"driver_up": 5, "first_trial": 6, "first_result": 9},
    }
    assert list(rounded.values()) == sorted(rounded.values())


# ------------------------------------------------------------------------------- watching


def test_watch_ends_with_the_run(made: MadeRun) -> None:
    attempt = made.attempt("12", progress=searching(RUNNING=1))
    slurm = FakeSlurm().has("12", JobState.RUNNING)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            attempt.end(ended("completed", "all trials have ended"))

    views = list(watch(made.run, pause=2, slurm=slurm, sleep=sleep))
    assert [str(view.state) for view in views] == ["running"] * 3 + ["completed"]
    assert pauses == [2, 2, 2]
    assert len(slurm.asked) <= 2  # one question for three looks within seconds, one after the end


def test_watch_goes_on_while_slurm_is_silent(made: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patient, "LONGEST", 0.0)
    monkeypatch.setattr(Patient, "SHORTEST", 0.0)
    made.submitted("12", ago=60)
    slurm = FakeSlurm(silent=SILENT)
    views = watch(made.run, pause=0, slurm=slurm, sleep=lambda seconds: None)
    assert [str(next(views).state) for _ in range(3)] == ["unknown"] * 3
    slurm.silent = None
    slurm.has("12", JobState.CANCELLED)
    assert [str(view.state) for view in views] == ["cancelled"]


def test_slurm_is_asked_less_and_less_often_while_nothing_changes() -> None:
    slurm = FakeSlurm().has("12", JobState.PENDING)
    now = 0.0
    patient = Patient(slurm, clock=lambda: now)
    times = []
    while now < 240:
        before = len(slurm.asked)
        patient.jobs(["12"])
        times += [now] * (len(slurm.asked) - before)
        now += 1
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] <= 6
    assert gaps == sorted(gaps)
    assert gaps[-1] == Patient.LONGEST
    slurm.has("12", JobState.RUNNING)
    now += 30
    assert patient.jobs(["12"])["12"].state is JobState.RUNNING
    asked = len(slurm.asked)
    patient.jobs(["12", "13"])
    assert len(slurm.asked) == asked + 1  # a new job: at once


def test_a_silent_slurm_keeps_nobody_waiting_at_every_look() -> None:
    slurm = FakeSlurm(silent=SILENT)
    patient = Patient(slurm, clock=lambda: 0.0)
    for _ in range(5):
        with pytest.raises(SlurmError, match=SILENT):
            patient.jobs(["12"])
    assert len(slurm.asked) == 1
