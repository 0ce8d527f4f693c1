"""What becomes of a job when its run is over and others wait behind it."""

from __future__ import annotations

import math

from hpc_tune.attempt import Attempt, Outcome, SlurmJob
from hpc_tune.errors import SlurmError
from hpc_tune.line import hand_over, take_back, waiting_behind
from hpc_tune.operations.following import Following, Way, in_order, send_successor
from hpc_tune.run import RunDir
from hpc_tune.slurm.client import Slurm
from hpc_tune.slurm.commands import JobInfo
from hpc_tune.slurm.states import JobState

__all__ = ["hand_on"]

START = 60.0
"""Seconds that a search takes at the least to be worth its start."""


def hand_on(
    run: RunDir, attempt: Attempt, outcome: Outcome, following: Following, job: SlurmJob, way: Way, slurm: Slurm
) -> str:
    """See to the next run of the line if this one is over: it gets this job, or one of its own where time is short.

    Args:
        run: the run whose attempt has ended.
        attempt: that attempt.
        outcome: how it ended.
        following: whether the run itself goes on.
        job: the job that this is called in.
        way: how the site wants jobs to be started.
        slurm: who starts them.

    Returns:
        What happens, in a sentence; empty if nobody waits.
    """
    behind = waiting_behind(run)
    if not behind or following.way != "none":
        return ""
    ends = outcome.ending == "interrupted" and outcome.cause in ("walltime", "terminated", "preempted")
    if ends and not following.is_last:
        return f"{behind[0].name} waits behind it; alone it is started with: hpc-tune resume {behind[0].path}"
    left = _seconds_left(job, slurm)
    if left is None:
        return f"{behind[0].name} is not started, since the job ends; start it with: hpc-tune resume {behind[0].path}"
    if ends or left < behind[0].record()["spec"]["allocation"]["grace"] + START:
        return _in_another_job(run, behind[0], attempt, job, way, slurm)
    if (taken := hand_over(run, job)) is None:
        return ""
    return f"the job goes on with {taken.name}"


def _seconds_left(job: SlurmJob, slurm: Slurm) -> float | None:
    """Return the time to the job's walltime, or None if somebody has ended it; Slurm's silence is taken for plenty."""
    try:
        info = slurm.jobs([job.job_id])[job.job_id]
    except SlurmError:
        info = JobInfo(job.job_id, JobState.RUNNING)
    if info.state is not JobState.RUNNING:
        return None
    return math.inf if info.time_left is None else info.time_left


def _in_another_job(run: RunDir, after: RunDir, attempt: Attempt, job: SlurmJob, way: Way, slurm: Slurm) -> str:
    refusals = []
    for each in in_order(way):
        try:
            sentence = send_successor(after, attempt, job, slurm) if each == "successor" else _requeue(run, job, slurm)
        except SlurmError as error:
            refusals.append(error.message)
        else:
            return f"{after.name} is next: {sentence}"
    return "\n".join([*refusals, f"start {after.name} with: hpc-tune resume {after.path}"])


def _requeue(run: RunDir, job: SlurmJob, slurm: Slurm) -> str:
    taken = hand_over(run, job)
    try:
        slurm.requeue(job.job_id)
    except SlurmError:
        if taken is not None:
            take_back(run, job, taken)
        raise
    return f"job {job.job_id} requeues itself"
