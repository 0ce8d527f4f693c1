"""Slurm's commands as pairs of pure functions: the argv that asks, and what its text says."""

from __future__ import annotations

from dataclasses import dataclass

from hpc_tune.slurm.states import JobState

__all__ = ["JobInfo"]


@dataclass(frozen=True)
class JobInfo:
    """What Slurm knows of one job. Times are seconds since the epoch, lengths seconds; None where it does not say."""

    job_id: str
    state: JobState = JobState.UNKNOWN
    reason: str = ""
    """Why it waits or ended, as a sentence; empty when there is nothing to say."""
    partition: str = ""
    nodes: int | None = None
    """How many nodes it has, or asks for while it waits."""
    node_list: str = ""
    """The nodes as Slurm abbreviates them: ``iris-[169-172]``."""
    submitted: float | None = None
    start: float | None = None
    """When it started; for a waiting job, when Slurm expects it to."""
    end: float | None = None
    """When it ended, or will at the latest."""
    time_limit: float | None = None
    time_left: float | None = None
    elapsed: float | None = None
    restarts: int | None = None
    """How often it was requeued; only scontrol and newer versions of squeue know."""
