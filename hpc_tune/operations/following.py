"""What comes after an attempt: another one by itself, or a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hpc_tune.attempt import Attempt, Outcome, SlurmJob
from hpc_tune.chain import lost_nodes, reason_to_end
from hpc_tune.errors import SlurmError
from hpc_tune.operations.submit import put_on_record
from hpc_tune.run import RunDir
from hpc_tune.slurm.client import Slurm

__all__ = ["Following", "Way", "follow_on", "in_order", "send_successor"]

Way = Literal["successor", "requeue", "none"]

GOES_ON = ("walltime", "preempted", "driver", "node")
"""Causes of an interruption after which the next attempt starts by itself: nobody wanted it to end."""


@dataclass(frozen=True)
class Following:
    """How the run goes on."""

    way: Literal["successor", "requeue", "slurm", "none"]
    """``slurm``: Slurm ends the job and starts it again by itself."""
    sentence: str
    is_last: bool = False
    """No further attempt starts by itself, whatever ended this one."""


def follow_on(run: RunDir, attempt: Attempt, outcome: Outcome, job: SlurmJob, way: Way, slurm: Slurm) -> Following:
    """Start the next attempt, if there should be one.

    Args:
        run: the run.
        attempt: the attempt that has ended.
        outcome: how it ended.
        job: the Slurm job that this is called in.
        way: how the site wants it; the other way is tried where this one is refused.
        slurm: who starts it.
    """
    by_hand = f"continue with: hpc-tune resume {run.path}"
    if outcome.ending != "interrupted":
        return Following("none", "")
    if outcome.cause not in GOES_ON:
        return Following("none", by_hand)
    if (why := reason_to_end(run, run.record()["spec"]["allocation"]["max_attempts"])) is not None:
        return Following("none", f"no further attempt starts by itself: {why}\n{by_hand}", is_last=True)
    refusals = []
    # a job that is preempted lets go of its nodes at once; Slurm would start it again only two minutes later
    preempted = outcome.cause == "preempted"
    ways: list[Way] = ["successor"] if preempted else in_order(way)
    for each in ways:
        try:
            return _start(each, run, attempt, job, slurm)
        except SlurmError as error:
            refusals.append(error.message)
    if preempted:
        return Following("slurm", "\n".join([*refusals, "Slurm starts the job again when it has nodes for it"]))
    return Following("none", "\n".join([*refusals, by_hand]))


def in_order(first: Way) -> list[Way]:
    """Return the ways to start a job, the one that the site wants first; none where it wants none."""
    ways: list[Way] = ["successor", "requeue"]
    return [] if first == "none" else [first, *(way for way in ways if way != first)]


def _start(way: Way, run: RunDir, attempt: Attempt, job: SlurmJob, slurm: Slurm) -> Following:
    if way == "requeue":
        slurm.requeue(job.job_id)
        return Following("requeue", f"job {job.job_id} requeues itself for the next attempt")
    return Following("successor", send_successor(run, attempt, job, slurm))


def send_successor(run: RunDir, attempt: Attempt, job: SlurmJob, slurm: Slurm) -> str:
    """Send a run's script as a job that begins when this one is over, and say so.

    Args:
        run: the run.
        attempt: the last one of this job, whose lost nodes the next one avoids.
        job: the job that this is called in.
        slurm: where to.

    Raises:
        SlurmError: if Slurm refuses.
    """
    lost = lost_nodes(attempt)
    after = f"afterany:{job.job_id}"
    try:
        sent = slurm.submit(run.job_script, dependency=after, extra=_without(run, lost))
    except SlurmError:
        if not lost:
            raise
        lost = []  # too few nodes are left without them
        sent = slurm.submit(run.job_script, dependency=after)
    job_id = put_on_record(run, sent, by="successor")
    without = f", without {', '.join(lost)}" if lost else ""
    return f"job {job_id} goes on as soon as this one is over{without}"


def _without(run: RunDir, lost: list[str]) -> list[str]:
    """Return the option that keeps a job off lost nodes, and off those that it has to avoid anyway."""
    if not lost:
        return []
    excluded = run.record()["spec"]["allocation"]["exclude"]
    return [f"--exclude={','.join([*([excluded] if excluded else []), *lost])}"]
