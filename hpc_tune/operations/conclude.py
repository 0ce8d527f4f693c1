"""The last call of a job script: what became of the attempt, and the tables. It runs where nothing of Ray is left."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hpc_tune.attempt import Attempt, AttemptRecord, Outcome, SlurmJob
from hpc_tune.errors import RunBusy, RunError, SlurmError, UsageError
from hpc_tune.operations.following import Following, Way, follow_on
from hpc_tune.operations.handing_on import hand_on
from hpc_tune.operations.tables import Collected, collect
from hpc_tune.run import RunDir
from hpc_tune.slurm.client import Slurm
from hpc_tune.slurm.states import JobState

__all__ = ["Concluded", "conclude"]


@dataclass(frozen=True)
class Concluded:
    """How the attempt of a job ended."""

    run: RunDir
    attempt: Attempt
    outcome: Outcome
    collected: Collected | None
    collect_error: str | None
    following: Following
    next_run: str = ""
    """What becomes of the run that waits behind this one, in a sentence; empty if there is none."""


def conclude(
    run: RunDir,
    *,
    way: Way,
    end_job: bool = False,
    slurm: Slurm | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Concluded:
    """Put on record how this job's attempt ended, see to the next one, and write the tables.

    Args:
        run: the run.
        way: how the site wants the next attempt to be started.
        end_job: end the job, which nobody else does: its script has died with its node.
        slurm: who starts it.
        environment: the job's.

    Raises:
        UsageError: outside of a Slurm job.
        RunBusy: if the job has made no attempt, since another one's was at work.
    """
    try:
        job = SlurmJob(environment["SLURM_JOB_ID"], int(environment.get("SLURM_RESTART_COUNT", "0")))
    except KeyError:
        raise UsageError(
            "conclude is the last line of a job script", hint=f"for the tables type: hpc-tune collect {run.path}"
        ) from None
    if (refusal := run.refusal_file(job)).exists():
        raise RunBusy(refusal.read_text(encoding="utf-8"))
    attempt = _attempt_of(run, job)
    outcome = attempt.outcome()
    if outcome is None:
        outcome = _unrecorded(run, attempt, job)
        attempt.end(outcome)
    slurm = slurm or Slurm()
    if outcome.cause == "terminated" and _still_has_its_job(job, slurm):
        outcome = replace(outcome, reason=f"preempted: {outcome.reason}", cause="preempted")
        outcome.write(attempt.outcome_file)
    following = follow_on(run, attempt, outcome, job, way, slurm)  # first: time may be short
    next_run = "" if end_job else hand_on(run, attempt, outcome, following, job, way, slurm)
    try:
        collected, collect_error = collect(run), None
    except RunError as error:
        collected, collect_error = None, error.message
    if end_job and following.way != "requeue":
        slurm.cancel([job.job_id])
    return Concluded(run, attempt, outcome, collected, collect_error, following, next_run)


def _still_has_its_job(job: SlurmJob, slurm: Slurm) -> bool:
    """Tell whether Slurm has the job running, as it has one that it preempts until the grace time is over."""
    try:
        return slurm.jobs([job.job_id])[job.job_id].state is JobState.RUNNING
    except SlurmError:
        return True


def _attempt_of(run: RunDir, job: SlurmJob) -> Attempt:
    """Return the attempt that the job made, or an empty one when no node agent came so far."""
    for attempt in reversed(run.attempts()):
        record = attempt.record()
        made_by = record.job if record else None
        if made_by and (made_by.job_id, made_by.restart_count) == (job.job_id, job.restart_count):
            return attempt
    attempt = run.new_attempt()
    attempt.begin(AttemptRecord("slurm", os.uname().nodename, cpus=0, gpus=0, nodes=0, job=job))
    return attempt


def _unrecorded(run: RunDir, attempt: Attempt, job: SlurmJob) -> Outcome:
    log = run.job_log(job.job_id)
    if not attempt.nodes():
        return Outcome("failed", "no node agent has started", exit_code=1, hint=f"see {log}")
    why = "the head node's agent ended without a word"
    return Outcome("interrupted", why, exit_code=1, hint=f"see {log}", cause="node")
