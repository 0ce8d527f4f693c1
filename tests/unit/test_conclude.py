"""The last call of a job script: how the attempt ended, what comes next, and the tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hpc_tune.attempt import Attempt, AttemptRecord, NodeRecord, Outcome, SlurmJob
from hpc_tune.cli import cli
from hpc_tune.errors import SlurmError, UsageError
from hpc_tune.operations.conclude import Concluded, conclude
from hpc_tune.run import RunDir
from hpc_tune.slurm.commands import JobInfo
from hpc_tune.slurm.states import JobState
from tests.unit.made_runs import NODES, MadeRun, searching

JOB = {"SLURM_JOB_ID": "4711"}
WALLTIME = Outcome("interrupted", "the walltime is near; the search is saved", exit_code=1, cause="walltime")


@dataclass
class FakeSlurm:
    """Keeps the protocol of hpc_tune.slurm.client.Slurm, as far as a job needs it that is about to end."""

    state: JobState = JobState.RUNNING
    refuses: tuple[str, ...] = ()
    """Names of methods."""
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    def _ask(self, method: str, *arguments: Any) -> None:
        self.asked.append((method, *arguments))
        if method in self.refuses:
            raise SlurmError(f"Slurm refused ({method}): denied")

    def submit(self, script: Path, *, dependency: str | None = None, extra: Sequence[str] = ()) -> tuple[str, str]:
        self._ask("submit", script.name, dependency, *extra)
        return "4712", "iris"

    def requeue(self, job_id: str) -> None:
        self._ask("requeue", job_id)

    def jobs(self, ids: Iterable[str]) -> dict[str, JobInfo]:
        self._ask("jobs", *ids)
        return {each: JobInfo(each, self.state) for each in ids}


@pytest.fixture
def made(project: Any, runs_dir: Path) -> MadeRun:
    made = MadeRun(project.create_run(runs_dir, num_samples=8))
    made.run.jobs_dir.mkdir()
    made.run.job_script.write_text("#!/bin/bash\n")
    return made


def at_work(made: MadeRun, outcome: Outcome | None = None, *, restart: int = 0, **given: Any) -> Attempt:
    """Make the attempt of the job, with two nodes up and some results."""
    attempt = made.attempt(
        "4711", restart=restart, nodes=2, names=NODES[:2], progress=searching(RUNNING=2), outcome=outcome, **given
    )
    for rank in (0, 1):
        made.node(attempt, NODES[rank], rank, "ended", up=2.0)
    return attempt


def concluded(
    made: MadeRun, slurm: FakeSlurm | None = None, *, way: Any = "successor", **environment: str
) -> Concluded:
    asked: Any = slurm or FakeSlurm()
    return conclude(made.run, way=way, slurm=asked, environment=JOB | environment)


def recorded(attempt: Attempt) -> tuple[str, str]:
    outcome = attempt.outcome()
    assert outcome is not None
    return outcome.ending, outcome.reason


def call(run: RunDir, monkeypatch: pytest.MonkeyPatch, slurm: FakeSlurm, *options: str) -> tuple[int, str]:
    """Call the command as the job script does."""
    monkeypatch.setattr(sys.modules[conclude.__module__], "Slurm", lambda: slurm)
    result = CliRunner().invoke(cli, ["conclude", str(run.path), *options], env=JOB)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, result.output


# ------------------------------------------------------------------------------- how it ended


def test_outside_of_a_job(made: MadeRun) -> None:
    with pytest.raises(UsageError) as caught:
        conclude(made.run, way="none", environment={})
    assert caught.value.message == "conclude is the last line of a job script"
    assert caught.value.hint == f"for the tables type: hpc-tune collect {made.run.path}"
    assert made.run.attempts() == []


@pytest.mark.parametrize("ending", ["completed", "failed", "interrupted"])
def test_what_the_driver_has_put_on_record_stands(made: MadeRun, ending: Any) -> None:
    attempt = at_work(made, Outcome(ending, "its own words", exit_code=5, cause="cancelled"))
    result = concluded(made)
    assert result.attempt == attempt
    assert (result.outcome.ending, result.outcome.reason) == (ending, "its own words")
    assert len(made.run.attempts()) == 1


def test_no_agent_came_so_far(made: MadeRun) -> None:
    """srun itself failed, say: the attempt exists nevertheless, and says where to look."""
    result = concluded(made)
    (attempt,) = made.run.attempts()
    assert result.attempt == attempt
    assert recorded(attempt) == (result.outcome.ending, result.outcome.reason)
    assert (result.outcome.ending, result.outcome.reason) == ("failed", "no node agent has started")
    assert result.outcome.hint == f"see {made.run.job_log('4711')}"
    record = attempt.record()
    assert record is not None
    assert record.job == SlurmJob("4711")
    assert result.following.way == "none"


def test_the_heads_agent_was_killed(made: MadeRun) -> None:
    attempt = at_work(made)
    result = concluded(made)
    assert (result.outcome.ending, result.outcome.cause) == ("interrupted", "node")
    assert result.outcome.reason == "the head node's agent ended without a word"
    assert result.outcome.hint == f"see {made.run.job_log('4711')}"
    assert attempt.outcome() is not None
    assert result.following.way == "successor"


def test_a_requeued_job_concludes_its_last_attempt(made: MadeRun) -> None:
    first = at_work(made, WALLTIME)
    second = at_work(made, restart=1)
    other = made.attempt("4000")
    result = concluded(made, SLURM_RESTART_COUNT="1")
    assert result.attempt == second
    assert first.outcome() == WALLTIME
    assert other.outcome() is None


def test_the_tables_are_written_whatever_happened(made: MadeRun) -> None:
    result = concluded(made)
    assert result.collected is not None
    assert {path.name for path in result.collected.files} == {"trials.csv", "history.csv", "summary.csv"}
    assert all(path.is_file() for path in result.collected.files)


def test_tables_that_cannot_be_written_hide_nothing(made: MadeRun) -> None:
    attempt = at_work(made)
    (made.run.path / "trials.csv").mkdir()
    (made.run.path / "trials.csv/in the way").touch()
    result = concluded(made)
    assert result.collected is None
    assert result.collect_error is not None
    assert "trials.csv" in result.collect_error
    assert recorded(attempt) == (result.outcome.ending, result.outcome.reason)
    assert result.following.way == "successor"


# ------------------------------------------------------------------------------- what comes next


def test_after_the_walltime_a_successor_waits_for_the_jobs_end(made: MadeRun) -> None:
    at_work(made, WALLTIME)
    slurm = FakeSlurm()
    result = concluded(made, slurm)
    assert slurm.asked == [("submit", "job.sbatch", "afterany:4711")]
    assert result.following.sentence == "job 4712 goes on as soon as this one is over"
    (submission,) = made.run.submissions()
    assert (submission.job_id, submission.by) == ("4712", "successor")


def test_a_successor_keeps_off_lost_nodes(made: MadeRun) -> None:
    attempt = at_work(made, Outcome("interrupted", "iris-170: Ray ended", exit_code=1, cause="node"))
    NodeRecord("iris-170", 1, "failed", 1.0, reason="Ray ended").write(attempt.node_file("iris-170"))
    slurm = FakeSlurm()
    result = concluded(made, slurm)
    assert slurm.asked == [("submit", "job.sbatch", "afterany:4711", "--exclude=iris-170")]
    assert result.following.sentence.endswith(", without iris-170")


def test_where_one_way_is_refused_the_other_is_tried(made: MadeRun) -> None:
    at_work(made, WALLTIME)
    slurm = FakeSlurm(refuses=("submit",))
    result = concluded(made, slurm)
    assert [asked[0] for asked in slurm.asked] == ["submit", "requeue"]
    assert result.following.way == "requeue"
    assert concluded(made, FakeSlurm(refuses=("requeue",)), way="requeue").following.way == "successor"


def test_where_all_is_refused_a_person_is_told(made: MadeRun) -> None:
    at_work(made, WALLTIME)
    result = concluded(made, FakeSlurm(refuses=("submit", "requeue")))
    assert result.following.way == "none"
    assert result.following.sentence.splitlines() == [
        "Slurm refused (submit): denied",
        "Slurm refused (requeue): denied",
        f"continue with: hpc-tune resume {made.run.path}",
    ]
    assert made.run.submissions() == []


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("completed", "all trials have ended"),
        Outcome("failed", "all 8 trials failed", exit_code=5),
        Outcome("interrupted", "it was cancelled; the search is saved", exit_code=1, cause="cancelled"),
    ],
    ids=["completed", "failed", "cancelled"],
)
def test_what_is_over_starts_nothing_and_asks_nobody(made: MadeRun, outcome: Outcome) -> None:
    at_work(made, outcome)
    slurm = FakeSlurm()
    assert concluded(made, slurm).following.way == "none"
    assert slurm.asked == []


def test_a_site_that_allows_neither(made: MadeRun) -> None:
    at_work(made, WALLTIME)
    slurm = FakeSlurm()
    result = concluded(made, slurm, way="none")
    assert result.following.sentence == f"continue with: hpc-tune resume {made.run.path}"
    assert slurm.asked == []


TERMINATED = Outcome("interrupted", "Slurm ends the job", exit_code=1, cause="terminated")


@pytest.mark.parametrize(
    ("state", "way"), [(JobState.RUNNING, "successor"), (JobState.COMPLETING, "none"), (JobState.CANCELLED, "none")]
)
def test_a_preempted_job_goes_on_a_cancelled_one_is_left_to_its_owner(made: MadeRun, state: JobState, way: str) -> None:
    """Both get a SIGTERM; only the preempted one still runs until its grace is over."""
    at_work(made, TERMINATED)
    slurm = FakeSlurm(state)
    done = concluded(made, slurm)
    assert done.following.way == way
    assert done.outcome == done.attempt.outcome(), "status tells it later, when Slurm has forgotten the job"
    assert done.outcome.reason.startswith("preempted: Slurm ends") is (way == "successor")
    assert [asked[0] for asked in slurm.asked] == ["jobs", *(["submit"] if way == "successor" else [])]


def test_a_preempted_job_that_may_send_no_other_is_left_to_slurm(made: MadeRun) -> None:
    """It must not requeue itself either: Slurm does."""
    at_work(made, TERMINATED)
    slurm = FakeSlurm(refuses=("submit",))
    following = concluded(made, slurm).following
    assert following.way == "slurm"
    assert following.sentence.splitlines()[0] == "Slurm refused (submit): denied"
    assert [asked[0] for asked in slurm.asked] == ["jobs", "submit"]


# ------------------------------------------------------------------------------- as the script calls it


def test_what_the_batch_log_says(made: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work(made, WALLTIME)
    code, output = call(made.run, monkeypatch, FakeSlurm())
    assert code == 0  # the search goes on: Slurm shall not call the job failed
    lines = output.splitlines()
    assert lines[0] == "attempt 1: interrupted: the walltime is near; the search is saved"
    assert lines[-1] == "job 4712 goes on as soon as this one is over"
    assert any(line.startswith("tables: ") for line in lines)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome("completed", "all trials have ended"), 0),
        (Outcome("failed", "all 8 trials failed", exit_code=5), 5),
        (Outcome("interrupted", "it was cancelled", exit_code=1, cause="cancelled"), 1),
        (None, 1),
    ],
    ids=["completed", "trials failed", "cancelled", "no agent"],
)
def test_the_exit_code_is_what_slurm_shows(
    made: MadeRun, monkeypatch: pytest.MonkeyPatch, outcome: Outcome | None, code: int
) -> None:
    if outcome is not None:
        at_work(made, outcome)
    assert call(made.run, monkeypatch, FakeSlurm(), "--next=none")[0] == code


def test_a_job_that_slurm_is_to_start_again_does_not_end_by_itself(
    made: MadeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm would count it as completed, and not start it again."""
    waited: list[float] = []
    monkeypatch.setattr("threading.Event.wait", lambda self, seconds: waited.append(seconds))
    at_work(made, TERMINATED)
    code, output = call(made.run, monkeypatch, FakeSlurm(refuses=("submit",)))
    assert (code, len(waited)) == (0, 1)
    assert waited[0] >= 1800  # no grace of a site is longer
    assert output.endswith("Slurm starts the job again when it has nodes for it\n")


def test_a_run_that_only_a_script_has_begun_can_still_be_looked_at(made: MadeRun) -> None:
    concluded(made)
    shown = CliRunner().invoke(cli, ["status", str(made.run.path)])
    assert shown.exit_code == 0, shown.output
    assert "no node agent has started" in shown.output


def test_a_record_that_is_damaged_counts_as_none(made: MadeRun) -> None:
    attempt = at_work(made)
    attempt.outcome_file.write_text("{")
    assert concluded(made).outcome.reason == "the head node's agent ended without a word"
    assert AttemptRecord.read(attempt.record_file) is not None
