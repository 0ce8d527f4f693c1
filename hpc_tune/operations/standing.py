"""How a run stands, in one word and a sentence why: its own records first, then what Slurm says."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum

from hpc_tune.attempt import Cancellation, Outcome, Submission
from hpc_tune.experiment.duration import format_seconds
from hpc_tune.line import TURN
from hpc_tune.operations.facts import AttemptFacts, RunFacts, SlurmView
from hpc_tune.slurm.commands import JobInfo
from hpc_tune.slurm.states import JobState

__all__ = ["RunState", "Standing", "cancellation", "stand", "unrecorded_end"]

FRESH = 60.0
"""Seconds for which a sign of life counts when nobody can be asked; a live driver gives one every second or so."""

YOUNG = 15.0
"""Seconds that a driver on this machine may take to say that it is at work."""

CLOCKS = 5.0
"""Seconds by which the clocks of nodes, file server and slurmctld may differ."""


class RunState(StrEnum):
    """How a run stands."""

    CREATED = "created"
    """Nothing has been started yet."""
    PENDING = "pending"
    """A job waits in Slurm."""
    STARTING = "starting"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Somebody ended it; it can be resumed."""
    UNKNOWN = "unknown"
    """Neither the records nor Slurm tell."""


@dataclass(frozen=True)
class Standing:
    """A run's state and why."""

    state: RunState
    reason: str
    live: bool = False
    """Whether something of it waits or runs."""
    at_work: bool = False
    """Whether the last attempt is what runs."""
    certain: bool = True
    """False where Slurm was silent and could say more."""
    job: JobInfo | None = None
    """The job that matters now, as Slurm sees it."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens by itself; False while that cannot be known."""
        return self.certain and not self.live


def stand(facts: RunFacts, view: SlurmView, *, now: float | None = None) -> Standing:
    """Judge a run by its records and by Slurm's answer."""
    now = time.time() if now is None else now
    last = facts.last
    if facts.ahead is not None:
        return _in_line(facts.ahead, view, now)
    if (job := _live_job(facts, view)) is not None:
        return _with_job(facts, job, now)
    if facts.unseen is not None:
        return _without_attempt(facts, facts.unseen, view, now)
    if last is None:
        if TURN in facts.cancellations:
            return Standing(RunState.CANCELLED, f"{_by(facts.cancellations[TURN])} before its turn came")
        return Standing(RunState.CREATED, "nothing has been started yet")
    if last.outcome is not None:
        return _recorded(facts, last, last.outcome, view)
    if last.job is None:
        return _on_a_machine(facts, last, now)
    return _unrecorded(facts, last, last.job.job_id, view, now)


def _in_line(ahead: RunFacts, view: SlurmView, now: float) -> Standing:
    """Judge a run that waits behind another one for their job."""
    before = stand(ahead, view, now=now)
    which = f"{ahead.run.name}, which is {before.state}: {before.reason}"
    if before.is_over:
        return Standing(RunState.CREATED, f"its turn has not come; it stands behind {which}")
    return Standing(RunState.PENDING, f"waits behind {which}", live=True, certain=before.certain, job=before.job)


def _live_job(facts: RunFacts, view: SlurmView) -> JobInfo | None:
    """Return the job that runs, or else the first that waits."""
    own = [view.jobs[each] for each in facts.job_ids if each in view.jobs and each not in facts.handed]
    live = [job for job in own if job.state.is_live]
    running = [job for job in live if not job.state.is_pending]
    return next(iter([*running, *live]), None)


def _with_job(facts: RunFacts, job: JobInfo, now: float) -> Standing:
    cancelled = f"; cancelled by {facts.cancellations[job.job_id].by}" if job.job_id in facts.cancellations else ""
    if job.state.is_pending:
        return Standing(RunState.PENDING, _waiting(facts, job, now) + cancelled, live=True, job=job)
    last = facts.last
    if last is None or last.job is None or last.job.job_id != job.job_id or _is_of_earlier_start(last, job):
        began = f" began {format_seconds(max(0, now - job.start))} ago" if job.start else " runs"
        reason = f"job {job.job_id}{began} on {_nodes(job)}; its attempt has not shown itself yet"
        return Standing(RunState.STARTING, reason + cancelled, live=True, job=job)
    if last.outcome is not None:
        state = RunState(last.outcome.ending)
        return Standing(state, f"{last.outcome.reason}; job {job.job_id} is not over yet", live=True, job=job)
    state, what = _at_work(last)
    if job.state is not JobState.RUNNING:
        what = f"{what}; Slurm has it {job.state.value.lower().replace('_', ' ')}"
    reason = f"attempt {last.attempt.number} {what} in job {job.job_id} on {_nodes(job)}"
    return Standing(state, reason + cancelled, live=True, at_work=True, job=job)


def _waiting(facts: RunFacts, job: JobInfo, now: float) -> str:
    attempt = facts.last.attempt.number + 1 if facts.last else 1
    where = f" in partition {job.partition}" if job.partition else ""
    why = f": {job.reason}" if job.reason else ""
    start = job.start or 0.0
    expected = f"; Slurm expects it to start in {format_seconds(start - now)}" if start > now else ""
    return f"job {job.job_id} waits{where} for attempt {attempt}{why}{expected}"


def _nodes(job: JobInfo) -> str:
    return job.node_list or (f"{job.nodes} nodes" if job.nodes else "its nodes")


def _is_of_earlier_start(last: AttemptFacts, job: JobInfo) -> bool:
    """Tell whether an attempt belongs to a start of the job before a requeue."""
    return job.start is not None and (last.ended or last.started or job.start) + CLOCKS < job.start


def _at_work(last: AttemptFacts) -> tuple[RunState, str]:
    phase = last.progress.phase if last.progress else "starting"
    if phase == "ending":
        return RunState.RUNNING, "saves and ends"
    return (RunState.STARTING, "starts") if phase == "starting" else (RunState.RUNNING, "runs")


def _on_a_machine(facts: RunFacts, last: AttemptFacts, now: float) -> Standing:
    if facts.holder is not None:
        state, what = _at_work(last)
        return Standing(state, f"attempt {last.attempt.number} {what}: {facts.holder}", live=True, at_work=True)
    if now - (last.started or last.attempt.path.stat().st_mtime) < YOUNG and last.progress is None:
        return Standing(RunState.STARTING, f"attempt {last.attempt.number} begins", live=True, at_work=True)
    if last.cancelled is not None:
        return Standing(RunState.CANCELLED, _by(last.cancelled))
    return Standing(RunState.INTERRUPTED, f"the driver of attempt {last.attempt.number} is gone without a word")


def _by(cancelled: Cancellation) -> str:
    return f"cancelled by {cancelled.by} on {cancelled.host}"


def cancellation(facts: RunFacts, attempt: AttemptFacts) -> Cancellation | None:
    """Return who ended an attempt, or the job that it ran in."""
    return facts.cancellations.get(attempt.job.job_id) if attempt.job else attempt.cancelled


def _without_attempt(facts: RunFacts, sent: Submission, view: SlurmView, now: float) -> Standing:
    """Judge a run whose newest job has not begun an attempt, and neither waits nor runs as far as Slurm says."""
    name = f"job {sent.job_id}"
    if sent.job_id in facts.cancellations:
        return Standing(RunState.CANCELLED, f"{name} was {_by(facts.cancellations[sent.job_id])} before it began")
    job = view.jobs.get(sent.job_id)
    if job is None:
        ago = format_seconds(max(0, now - sent.submitted))
        reason = f"{name} was sent {ago} ago and has left no record yet; Slurm could not be asked"
        return Standing(RunState.UNKNOWN, reason, certain=False)
    if job.state is JobState.UNKNOWN:
        return Standing(RunState.UNKNOWN, f"{name} has left no record: {_gone(job)}", job=job)
    state = RunState.CANCELLED if job.state is JobState.CANCELLED else RunState.FAILED
    return Standing(state, f"{name} ended before its attempt began: {_ending_words(job)}", job=job)


def _recorded(facts: RunFacts, last: AttemptFacts, outcome: Outcome, view: SlurmView) -> Standing:
    certain = view.silence is None or outcome.ending == "completed" or last.job is None
    job = view.jobs.get(last.job.job_id) if last.job else None
    cancelled = cancellation(facts, last)
    if cancelled is not None and outcome.ending != "completed":
        return Standing(RunState.CANCELLED, f"{_by(cancelled)}: {outcome.reason}", certain=certain, job=job)
    return Standing(RunState(outcome.ending), outcome.reason, certain=certain, job=job)


def _unrecorded(facts: RunFacts, last: AttemptFacts, job_id: str, view: SlurmView, now: float) -> Standing:
    """Judge an attempt in a job that does not run any more as far as Slurm says, and left no outcome."""
    job = view.jobs.get(job_id)
    if job is not None:
        state, reason = unrecorded_end(last, job, cancellation(facts, last))
        return Standing(state, reason, job=job)
    silent = "Slurm could not be asked"
    if last.seen is None:
        return Standing(
            RunState.UNKNOWN, f"attempt {last.attempt.number} has left no record yet; {silent}", certain=False
        )
    ago = format_seconds(max(0, now - last.seen))
    if now - last.seen > FRESH:
        return Standing(RunState.UNKNOWN, f"its last sign of life is {ago} old; {silent}", certain=False)
    state, what = _at_work(last)
    reason = f"attempt {last.attempt.number} {what} in job {job_id}: a sign of life {ago} ago; {silent}"
    return Standing(state, reason, live=True, at_work=True, certain=False)


_ENDED = {
    JobState.TIMEOUT: "it reached its time limit",
    JobState.PREEMPTED: "it was preempted",
    JobState.NODE_FAIL: "a node failed",
    JobState.CANCELLED: "it was cancelled",
    JobState.OUT_OF_MEMORY: "it ran out of memory",
    JobState.FAILED: "its script failed",
    JobState.COMPLETED: "its script came to its end",
}
_NOBODYS_FAULT = (JobState.TIMEOUT, JobState.PREEMPTED, JobState.NODE_FAIL, JobState.COMPLETED, JobState.UNKNOWN)


def _ending_words(job: JobInfo) -> str:
    """Say how a job ended, in Slurm's own sentence where it has one."""
    return job.reason or _ENDED.get(job.state, f"Slurm says {job.state.value}")


def _gone(job: JobInfo) -> str:
    return job.reason or "Slurm does not know it any more"


def unrecorded_end(attempt: AttemptFacts, job: JobInfo | None, cancelled: Cancellation | None) -> tuple[RunState, str]:
    """Say how an attempt ended that could not say it itself; it is never taken for completed."""
    if cancelled is not None:
        return RunState.CANCELLED, f"{_by(cancelled)} before it could save"
    if attempt.job is None:
        return RunState.INTERRUPTED, "its driver is gone without a word"
    name = f"job {attempt.job.job_id}"
    if job is None:
        return RunState.UNKNOWN, f"{name} left no outcome, and Slurm could not be asked"
    if job.state.is_pending or _is_of_earlier_start(attempt, job):
        return RunState.INTERRUPTED, f"Slurm ended {name} and queued it again before it could save"
    if job.state is JobState.UNKNOWN:
        return RunState.INTERRUPTED, f"{name} is gone without a word: {_gone(job)}"
    if job.state is JobState.CANCELLED:
        return RunState.CANCELLED, f"{name} ended without a word: {_ending_words(job)}"
    state = RunState.INTERRUPTED if job.state in _NOBODYS_FAULT else RunState.FAILED
    return state, f"{name} ended without a word: {_ending_words(job)}"
