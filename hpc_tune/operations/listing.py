"""All runs of a directory, a line each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hpc_tune.errors import RunError
from hpc_tune.operations.facts import Jobs, RunFacts, SlurmView, ask, trial_states
from hpc_tune.operations.standing import RunState, stand
from hpc_tune.progress import Best
from hpc_tune.run import RunDir, list_runs
from hpc_tune.slurm.client import Slurm
from hpc_tune.slurm.commands import JobInfo

__all__ = ["ListedRun", "Listing", "list_all"]


@dataclass(frozen=True)
class ListedRun:
    """One run, in as much as fits on a line."""

    run: RunDir
    state: RunState
    reason: str
    created: float | None
    finished: int
    """Trials that ended, well or not."""
    total: int
    metric: str
    best: Best | None
    attempts: int
    host: str | None
    """Where it ran last, if that was not on Slurm."""
    job: JobInfo | None
    """The job that matters now, as far as Slurm knows it."""


@dataclass(frozen=True)
class Listing:
    """The runs of a directory, oldest first."""

    runs_dir: Path
    runs: tuple[ListedRun, ...]
    silence: str | None
    """Why Slurm could not be asked; None when it answered, or nobody had a question."""


def list_all(runs_dir: Path, *, slurm: Jobs | None = None) -> Listing:
    """List the runs of a directory, with one question to Slurm for all of them."""
    read = [_read(run) for run in list_runs(runs_dir)]
    view = ask(slurm or Slurm(), _questions(each for each in read if isinstance(each, RunFacts)))
    lines = tuple(_line(each, view) if isinstance(each, RunFacts) else each for each in read)
    return Listing(runs_dir, lines, view.silence)


def _read(run: RunDir) -> RunFacts | ListedRun:
    """Read a run's records; a damaged one is a line of its own, so that the others can be seen."""
    try:
        return RunFacts.read(run)
    except RunError as error:
        return ListedRun(run, RunState.UNKNOWN, error.message, None, 0, 0, "", None, 0, None, None)


def _questions(runs: Iterable[RunFacts]) -> list[str]:
    return [job_id for facts in runs for job_id in facts.open_job_ids]


def _line(facts: RunFacts, view: SlurmView) -> ListedRun:
    standing = stand(facts, view)
    states = trial_states(facts, at_work=standing.at_work)
    last = facts.last
    job_id = facts.unseen.job_id if facts.unseen else last.job.job_id if last and last.job else None
    return ListedRun(
        run=facts.run,
        state=standing.state,
        reason=standing.reason,
        created=float(facts.record["created"]),
        finished=states.get("TERMINATED", 0) + states.get("ERROR", 0),
        total=facts.total,
        metric=facts.metric,
        best=facts.best,
        attempts=len(facts.attempts),
        host=last.record.host if last and last.record and job_id is None else None,
        job=standing.job or (JobInfo(job_id) if job_id else None),
    )
