"""What there is to know of one run: Slurm's word and its own records, joined."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hpc_tune.errors import TrialsFailed
from hpc_tune.operations.attempts import AttemptStatus, NodeStatus, nodes, phases, story
from hpc_tune.operations.facts import AttemptFacts, Jobs, Patient, RunFacts, SlurmView, ask, trial_states
from hpc_tune.operations.followups import FollowUpFacts, FollowUpStatus, follow_ups, judge
from hpc_tune.operations.standing import RunState, Standing, stand
from hpc_tune.progress import Best
from hpc_tune.run import RunDir
from hpc_tune.slurm.client import Slurm
from hpc_tune.slurm.commands import JobInfo
from hpc_tune.slurm.states import JobState

__all__ = ["RunStatus", "status", "watch"]

TABLES = ("trials.csv", "history.csv", "summary.csv", "report.html")


@dataclass(frozen=True)
class RunStatus:
    """One run at one instant."""

    run: RunDir
    state: RunState
    reason: str
    live: bool
    over: bool
    """Nothing more will happen by itself; False while that cannot be known."""
    created: float
    seen: float | None
    """The last sign of life of a driver."""
    jobs: tuple[JobInfo, ...]
    """What Slurm knows of the run's live jobs, or else of its last one."""
    time_left: float | None
    """Seconds to the walltime of the running job."""
    metric: str
    total: int
    trials: dict[str, int]
    """By Ray's words, and ``INTERRUPTED``."""
    best: Best | None
    curve: tuple[float, ...]
    """The best value so far over the results of all attempts, at evenly spaced points."""
    eta: float | None
    nodes_asked: int
    nodes: tuple[NodeStatus, ...]
    phases: dict[str, float]
    """Seconds from the start of the last attempt's job until it had reached what."""
    attempts: tuple[AttemptStatus, ...]
    tables: tuple[Path, ...]
    notes: tuple[str, ...]
    next: tuple[str, ...]
    """What to type."""
    followups: tuple[FollowUpStatus, ...] = ()


def status(run: RunDir, *, slurm: Jobs | None = None) -> RunStatus:
    """Tell how a run stands, from its small files and one question to Slurm.

    Raises:
        RunError: if the run record is missing or damaged.
    """
    facts = RunFacts.read(run)
    followups = follow_ups(run)
    asked = [*_questions(facts), *(job_id for each in followups for job_id in each.open_job_ids)]
    return _joined(facts, followups, ask(slurm or Slurm(), asked))


def watch(
    run: RunDir, *, pause: float, slurm: Jobs | None = None, sleep: Callable[[float], None] = time.sleep
) -> Iterator[RunStatus]:
    """Tell again and again how a run stands, until it is over."""
    patient = Patient(slurm or Slurm())
    while True:
        now = status(run, slurm=patient)
        yield now
        if now.over:
            return
        sleep(pause)


def _questions(facts: RunFacts) -> list[str]:
    """Return the jobs that may be live, and those that left an attempt without an outcome."""
    unexplained = (each.job.job_id for each in facts.attempts if each.job and each.outcome is None)
    return [*facts.open_job_ids, *unexplained]


def _joined(facts: RunFacts, followups: Iterable[FollowUpFacts], view: SlurmView) -> RunStatus:
    now = time.time()
    standing = stand(facts, view, now=now)
    last = facts.last
    return RunStatus(
        run=facts.run,
        state=standing.state,
        reason=standing.reason,
        live=standing.live,
        over=standing.is_over,
        created=float(facts.record["created"]),
        seen=last.seen if last else None,
        jobs=_jobs(facts, view, standing),
        time_left=_time_left(standing.job, now),
        metric=facts.metric,
        total=facts.total,
        trials=trial_states(facts, at_work=standing.at_work),
        best=facts.best,
        curve=facts.curve,
        eta=last.progress.eta_seconds if last and last.progress and standing.at_work else None,
        nodes_asked=last.record.nodes if last and last.record and last.job else 0,
        nodes=nodes(last, _job_of(last, view), at_work=standing.at_work) if last else (),
        phases=phases(last) if last else {},
        attempts=story(facts, view, standing),
        tables=tuple(path for name in TABLES if (path := facts.run.path / name).exists()),
        notes=_notes(last, view),
        next=_next(facts, standing),
        followups=tuple(judge(each, view) for each in followups),
    )


def _job_of(attempt: AttemptFacts, view: SlurmView) -> JobInfo | None:
    return view.jobs.get(attempt.job.job_id) if attempt.job else None


def _jobs(facts: RunFacts, view: SlurmView, standing: Standing) -> tuple[JobInfo, ...]:
    own = (view.jobs[job_id] for job_id in dict.fromkeys(_questions(facts)) if job_id in view.jobs)
    live = tuple(job for job in own if job.state.is_live)
    return live or ((standing.job,) if standing.job else ())


def _time_left(job: JobInfo | None, now: float) -> float | None:
    """Return the time to the walltime; of a job that was asked about some time ago, by its end."""
    if job is None or job.state is not JobState.RUNNING:
        return None
    return max(0.0, job.end - now) if job.end is not None else job.time_left


def _notes(last: AttemptFacts | None, view: SlurmView) -> tuple[str, ...]:
    said = last.progress.notes if last and last.progress else ()
    silent = (f"Slurm could not be asked ({view.silence}); this is what the run's own files say",)
    return (*said, *(silent if view.silence else ()))


def _next(facts: RunFacts, standing: Standing) -> tuple[str, ...]:
    """Return what to type now."""
    path = shlex.quote(str(facts.run.path))
    if standing.live:
        return (f"hpc-tune logs {path} --follow", f"hpc-tune cancel {path}")
    if facts.ahead is not None:
        return f"hpc-tune resume {shlex.quote(str(facts.ahead.run.path))}", f"hpc-tune resume {path}"
    if standing.state is RunState.CREATED and facts.run.job_script.exists():
        return (f"sbatch {shlex.quote(str(facts.run.job_script))}",)
    if standing.state is RunState.COMPLETED:
        return () if (facts.run.path / TABLES[0]).exists() else (f"hpc-tune collect {path}",)
    resume = f"hpc-tune resume {path}"
    outcome = facts.last.outcome if facts.last else None
    if outcome is not None and outcome.exit_code == TrialsFailed.exit_code:
        resume += " --retry-errors"  # without, there is nothing left to do
    return (f"hpc-tune doctor {path}", resume) if standing.state is RunState.FAILED else (resume,)
