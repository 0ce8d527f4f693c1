"""What a run's small files and Slurm say at one instant; never a look into ``storage/``, however many trials it has."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from hpc_tune import line
from hpc_tune.attempt import Attempt, AttemptRecord, Cancellation, Outcome, SlurmJob, Submission
from hpc_tune.errors import SlurmError
from hpc_tune.progress import Best, Progress, improves
from hpc_tune.run import RunDir
from hpc_tune.slurm.commands import JobInfo
from hpc_tune.slurm.states import JobState

__all__ = ["AttemptFacts", "Jobs", "Patient", "RunFacts", "SlurmView", "ask", "trial_states"]

MOST_POINTS = 40
"""Of a curve: as many as fit in a line."""


class Jobs(Protocol):
    """Who knows about Slurm's jobs: :class:`hpc_tune.slurm.client.Slurm`."""

    def jobs(self, ids: Iterable[str]) -> dict[str, JobInfo]:
        """Return what is known of each job."""
        ...


@dataclass(frozen=True)
class SlurmView:
    """Slurm's answer about some jobs, or why there is none."""

    jobs: Mapping[str, JobInfo] = field(default_factory=dict)
    silence: str | None = None
    """Why Slurm could not be asked; None when it answered, or nobody had a question."""

    @property
    def states(self) -> dict[str, JobState]:
        """The jobs' states alone."""
        return {job_id: job.state for job_id, job in self.jobs.items()}


def ask(slurm: Jobs, job_ids: Iterable[str]) -> SlurmView:
    """Ask Slurm about jobs, all in one call and only if there are any; its silence is part of the answer."""
    ids = list(dict.fromkeys(job_ids))
    if not ids:
        return SlurmView()
    try:
        return SlurmView(slurm.jobs(ids))
    except SlurmError as error:
        return SlurmView(silence=error.message)


class Patient:
    """Slurm for those who look again and again: asked less and less often while its answer stays the same."""

    SHORTEST = 4.0
    LONGEST = 30.0

    def __init__(self, slurm: Jobs, clock: Callable[[], float] = time.monotonic) -> None:
        self._slurm = slurm
        self._clock = clock
        self._asked: tuple[str, ...] = ()
        self._view = SlurmView()
        self._due = float("-inf")
        self._period = self.SHORTEST

    def jobs(self, ids: Iterable[str]) -> dict[str, JobInfo]:
        """Return what is known of the jobs, at most half a minute old; at once when they are others than before.

        Raises:
            SlurmError: if Slurm was silent when it was last asked: a slurmctld that is down keeps one waiting.
        """
        wanted = tuple(ids)
        if wanted != self._asked or self._clock() >= self._due:
            before, self._view = self._view.states, ask(self._slurm, wanted)
            self._period = min(self._period * 1.5, self.LONGEST) if self._view.states == before else self.SHORTEST
            self._asked, self._due = wanted, self._clock() + self._period
        if self._view.silence is not None:
            raise SlurmError(self._view.silence)
        return dict(self._view.jobs)


@dataclass(frozen=True)
class AttemptFacts:
    """The records of one attempt."""

    attempt: Attempt
    record: AttemptRecord | None
    progress: Progress | None
    outcome: Outcome | None
    seen: float | None
    """When its progress was last written, by the file server's clock: the last sign of life."""
    cancelled: Cancellation | None
    """Who ended it, if it ran outside of Slurm."""

    @classmethod
    def read(cls, attempt: Attempt) -> AttemptFacts:
        """Read the records."""
        try:
            seen = attempt.progress_file.stat().st_mtime
        except FileNotFoundError:
            seen = None
        return cls(
            attempt,
            attempt.record(),
            Progress.read(attempt.progress_file) if seen is not None else None,
            attempt.outcome(),
            seen,
            Cancellation.read(attempt.cancel_file),
        )

    @property
    def job(self) -> SlurmJob | None:
        """The Slurm job that it runs in; None on a machine without, and before its record is there."""
        return self.record.job if self.record else None

    @property
    def started(self) -> float | None:
        """When it began, if that is on record."""
        return self.record.started if self.record and self.record.started else None

    @property
    def ended(self) -> float | None:
        """When it ended, or gave its last sign of life if it could not say."""
        return self.outcome.ended if self.outcome and self.outcome.ended else self.seen


@dataclass(frozen=True)
class RunFacts:
    """The records of a run."""

    run: RunDir
    record: Mapping[str, Any]
    submissions: tuple[Submission, ...]
    attempts: tuple[AttemptFacts, ...]
    cancellations: Mapping[str, Cancellation]
    """By job, who ended it; also by :data:`hpc_tune.line.TURN`."""
    ahead: RunFacts | None = None
    """The run that this one waits behind, in its job; None once it has had its turn."""
    handed: frozenset[str] = frozenset()
    """Jobs that have gone on to another run."""

    @classmethod
    def read(cls, run: RunDir) -> RunFacts:
        """Read the records.

        Raises:
            RunError: if the run record is missing or damaged.
        """
        record = run.record()
        submissions = tuple(run.submissions())
        attempts = tuple(map(AttemptFacts.read, run.attempts()))
        found = ((path.stem, Cancellation.read(path)) for path in run.jobs_dir.glob("*.cancelled"))
        before = line.ahead(run) if line.waits(run) else None
        return cls(
            run,
            record,
            submissions,
            attempts,
            {job: each for job, each in found if each is not None},
            ahead=cls.read(before) if before is not None else None,
            handed=frozenset(line.handed_jobs(run)),
        )

    @property
    def metric(self) -> str:
        """What the search improves."""
        return str(self.record["spec"]["metric"])

    @property
    def mode(self) -> str:
        """Whether the metric is to be ``min`` or ``max``."""
        return str(self.record["spec"]["mode"])

    @property
    def last(self) -> AttemptFacts | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @cached_property
    def holder(self) -> str | None:
        """The process that is at work in the run, if any is."""
        return self.run.lock.holder()

    @property
    def total(self) -> int:
        """How many trials the search has: as its driver says, before that as the experiment says."""
        said = (each.progress.total for each in reversed(self.attempts) if each.progress and each.progress.total)
        return next(said, 0) or _total(self.record["spec"])

    @property
    def best(self) -> Best | None:
        """The best result of all attempts; a driver knows only those of its own."""
        best: Best | None = None
        for each in self.attempts:
            found = each.progress.best if each.progress else None
            if found is not None and improves(found.value, best.value if best else None, self.mode):
                best = found
        return best

    @property
    def curve(self) -> tuple[float, ...]:
        """The best value so far over the results of all attempts, at evenly spaced points."""
        best: float | None = None
        points: list[float] = []
        for each in self.attempts:
            for value in each.progress.curve if each.progress else ():
                best = value if improves(value, best, self.mode) or best is None else best
                points += [best] * (each.progress.curve_step if each.progress else 1)
        most = min(len(points), MOST_POINTS)
        return tuple(points[len(points) * (place + 1) // most - 1] for place in range(most))

    @property
    def unseen(self) -> Submission | None:
        """The newest job, if it was sent after the last attempt began and has not begun one itself."""
        seen = {each.job.job_id for each in self.attempts if each.job}
        newest = self.submissions[-1] if self.submissions else None
        if newest is None or newest.job_id in seen:
            return None
        began = self.last.started if self.last else None
        return newest if began is None or newest.submitted >= began else None

    @property
    def job_ids(self) -> list[str]:
        """All jobs of the run, oldest first."""
        ran = (each.job.job_id for each in self.attempts if each.job)
        return list(dict.fromkeys([*(each.job_id for each in self.submissions), *ran]))

    @property
    def open_job_ids(self) -> list[str]:
        """The jobs that may still wait or run as far as the files tell: none of those before the last attempt's.

        Two attempts of a run never overlap, so a job is over when a later one has begun.
        """
        if self.ahead is not None:
            return self.ahead.kept_job_ids
        last = self._last_begun
        is_over = last is not None and last.outcome is not None and last.outcome.ending == "completed"
        over = last.job.job_id if last and last.job and is_over else None
        return [each for each in self.kept_job_ids if each != over]

    @property
    def kept_job_ids(self) -> list[str]:
        """The jobs from the last attempt's on, also where that is complete; none that has gone on to another run."""
        if self.ahead is not None:
            return self.ahead.kept_job_ids
        last = self._last_begun
        if last is None or last.job is None:
            ids = [self.unseen.job_id] if self.unseen else []
        else:
            ids = self.job_ids[self.job_ids.index(last.job.job_id) :]
        return [each for each in ids if each not in self.handed]

    @property
    def _last_begun(self) -> AttemptFacts | None:
        return next((each for each in reversed(self.attempts) if each.record is not None), None)


def _total(spec: Mapping[str, Any]) -> int:
    """Count the trials of a plain spec: the samples times the sizes of all grids."""
    return int(spec["num_samples"]) * math.prod(_grids(spec["space"]))


def _grids(space: Any) -> Iterator[int]:
    if not isinstance(space, Mapping):
        return
    for key, value in space.items():
        if key in ("grid", "grid_search") and len(space) == 1 and isinstance(value, list):
            yield len(value)
        else:
            yield from _grids(value)


def trial_states(facts: RunFacts, *, at_work: bool) -> dict[str, int]:
    """Return numbers of trials by Ray's words; what a driver left that is not at work is ``INTERRUPTED``."""
    for each in reversed(facts.attempts):
        if each.progress and each.progress.states:
            states = each.progress.states
            return dict(states) if at_work and each is facts.last else _interrupted(states)
    return {}


def _interrupted(states: Mapping[str, int]) -> dict[str, int]:
    found = {state: count for state, count in states.items() if state not in ("RUNNING", "PAUSED")}
    left = states.get("RUNNING", 0) + states.get("PAUSED", 0)
    return found | ({"INTERRUPTED": left} if left else {})
