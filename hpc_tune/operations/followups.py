"""How a run's follow-ups stand: their own records first, then what Slurm says."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from hpc_tune.attempt import Cancellation, Submission
from hpc_tune.errors import RunError
from hpc_tune.followup import FollowUp, FollowUpOutcome, FollowUpRecord
from hpc_tune.operations.facts import Jobs, RunFacts, SlurmView
from hpc_tune.operations.standing import RunState, stand
from hpc_tune.process import is_alive
from hpc_tune.run import RunDir, user_name
from hpc_tune.slurm.commands import JobInfo

__all__ = ["Canceller", "FollowUpFacts", "FollowUpState", "FollowUpStatus", "end_follow_ups", "follow_ups", "judge"]


class Canceller(Jobs, Protocol):
    """Who knows about Slurm's jobs and ends them: :class:`hpc_tune.slurm.client.Slurm`."""

    def cancel(self, ids: Iterable[str], *, signal: str | None = None) -> None:
        """End jobs."""
        ...


class FollowUpState(StrEnum):
    """How a follow-up stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def is_live(self) -> bool:
        """Whether it waits or runs."""
        return self in (FollowUpState.WAITING, FollowUpState.RUNNING)


@dataclass(frozen=True)
class FollowUpFacts:
    """The records of one follow-up."""

    followup: FollowUp
    record: FollowUpRecord
    sent: Submission | None
    outcome: FollowUpOutcome | None
    cancelled: Cancellation | None
    replay: RunFacts | None
    """The run that a replay is, once it has begun."""

    @classmethod
    def read(cls, followup: FollowUp) -> FollowUpFacts | None:
        """Read the records; None for one that is just being made."""
        if (record := followup.record()) is None:
            return None
        outcome = followup.outcome()
        path = record.arguments.get("replay") or (outcome.result.get("replay") if outcome else None)
        replay = None
        if path is not None:
            with suppress(RunError):  # its owner has removed it
                replay = RunFacts.read(RunDir(Path(path)))
        return cls(followup, record, followup.sent(), outcome, followup.cancellation(), replay)

    @property
    def open_job_ids(self) -> Sequence[str]:
        """The jobs that may still wait or run, as far as the files tell."""
        if self.replay is not None:
            return self.replay.open_job_ids
        is_open = self.record.executor == "slurm" and self.outcome is None and self.sent is not None
        return [self.sent.job_id] if self.sent and is_open else []


def follow_ups(run: RunDir) -> tuple[FollowUpFacts, ...]:
    """Read the records of a run's follow-ups, oldest first."""
    found = map(FollowUpFacts.read, FollowUp.of_run(run.path))
    return tuple(each for each in found if each is not None)


@dataclass(frozen=True)
class FollowUpStatus:
    """One follow-up at one instant."""

    name: str
    kind: str
    state: FollowUpState
    reason: str
    executor: str
    job_id: str | None
    """Its Slurm job; None without."""
    created: float
    started: float | None
    ended: float | None
    arguments: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    hint: str | None = None
    log: Path | None = None
    """Where it, or the traceback of the user's function, can be read."""
    path: Path = Path()


def judge(facts: FollowUpFacts, view: SlurmView) -> FollowUpStatus:
    """Tell how a follow-up stands."""
    state, reason = _state(facts, view)
    outcome, sent = facts.outcome, facts.sent
    on_slurm = facts.record.executor == "slurm"
    return FollowUpStatus(
        name=facts.followup.name,
        kind=facts.record.kind,
        state=state,
        reason=reason,
        executor=facts.record.executor,
        job_id=sent.job_id if sent and on_slurm else None,
        created=facts.record.created,
        started=outcome.started if outcome else None,
        ended=outcome.ended if outcome else None,
        arguments=facts.record.arguments,
        result=outcome.result if outcome else {},
        hint=outcome.hint if outcome else None,
        log=_log(facts),
        path=facts.followup.path,
    )


def _log(facts: FollowUpFacts) -> Path | None:
    if facts.followup.error_file.exists():
        return facts.followup.error_file
    log = facts.followup.log(facts.sent.job_id) if facts.sent else None
    return log if log is not None and log.exists() else None


_OF_RUN = {
    RunState.PENDING: FollowUpState.WAITING,
    RunState.STARTING: FollowUpState.RUNNING,
    RunState.RUNNING: FollowUpState.RUNNING,
    RunState.COMPLETED: FollowUpState.DONE,
    RunState.CANCELLED: FollowUpState.CANCELLED,
    RunState.FAILED: FollowUpState.FAILED,
    RunState.INTERRUPTED: FollowUpState.FAILED,
}


def _state(facts: FollowUpFacts, view: SlurmView) -> tuple[FollowUpState, str]:
    if facts.replay is not None:
        standing = stand(facts.replay, view)
        return _OF_RUN.get(standing.state, FollowUpState.UNKNOWN), f"run {facts.replay.run.name}: {standing.reason}"
    if facts.outcome is not None:
        return (FollowUpState.DONE, "") if facts.outcome.ok else (FollowUpState.FAILED, facts.outcome.reason)
    if facts.cancelled is not None:
        return FollowUpState.CANCELLED, f"cancelled by {facts.cancelled.by} on {facts.cancelled.host}"
    if facts.sent is None:
        return FollowUpState.UNKNOWN, "it left no record of a job or process"
    if facts.record.executor == "slurm":
        return _by_slurm(facts.sent, view.jobs.get(facts.sent.job_id))
    return _by_process(facts.record, int(facts.sent.job_id))


def _by_slurm(sent: Submission, job: JobInfo | None) -> tuple[FollowUpState, str]:
    name = f"job {sent.job_id}"
    if job is None:
        return FollowUpState.UNKNOWN, f"{name} has left no record yet; Slurm could not be asked"
    why = f": {job.reason}" if job.reason else ""
    if job.state.is_pending:
        return FollowUpState.WAITING, f"{name}{why}"
    if job.state.is_live:
        return FollowUpState.RUNNING, f"{name} on {job.node_list or 'its node'}"
    said = why or f": Slurm says {job.state.value}"
    return FollowUpState.FAILED, f"{name} ended without a word{said}"


def _by_process(record: FollowUpRecord, pid: int) -> tuple[FollowUpState, str]:
    if record.host != socket.gethostname():
        return FollowUpState.UNKNOWN, f"process {pid} on {record.host}: only that machine knows"
    if is_alive(pid):
        return FollowUpState.RUNNING, f"process {pid} on {record.host}"
    return FollowUpState.FAILED, f"process {pid} is gone without a word"


def end_follow_ups(run: RunDir, slurm: Canceller) -> list[str]:
    """End the follow-ups of a run that wait or run, and put on record who did; return their names.

    A replay is a run of its own, and is ended like one.

    Raises:
        SlurmError: if Slurm cannot be asked, or refuses.
    """
    found = [each for each in follow_ups(run) if each.sent is not None and each.replay is None]
    jobs = [job_id for each in found for job_id in each.open_job_ids]
    view = SlurmView(slurm.jobs(jobs) if jobs else {})
    live = [each for each in found if judge(each, view).state.is_live]
    for each in live:
        Cancellation(user_name(), socket.gethostname(), time.time()).write(each.followup.cancel_file)
        if each.sent is not None and each.record.executor != "slurm":
            with suppress(ProcessLookupError):
                os.kill(int(each.sent.job_id), signal.SIGINT)
    if ending := [job_id for each in live for job_id in each.open_job_ids]:
        slurm.cancel(ending)
    return [each.followup.name for each in live]
