"""The one place that runs Slurm's commands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_tune.slurm.commands import JobInfo

__all__ = ["Slurm"]


@dataclass(frozen=True)
class Slurm:
    """Slurm as its commands offer it. Each method costs a fixed number of calls, whatever the number of nodes.

    Raises, from every method that talks to Slurm:
        SlurmError: a command is missing, refused the request, or did not answer in time.
    """

    timeout: float = 60.0

    def submit(self, script: Path, *, dependency: str | None = None, extra: Sequence[str] = ()) -> tuple[str, str]:
        """Send a job script; return the job's id, and the cluster's name where sbatch says it (else empty)."""
        raise NotImplementedError

    def jobs(self, ids: Iterable[str]) -> dict[str, JobInfo]:
        """Return what is known of the jobs, each id included: one squeue, one sacct for the forgotten."""
        raise NotImplementedError

    def cancel(self, ids: Iterable[str], *, signal: str | None = None) -> None:
        """End jobs, or send a signal to their batch scripts and steps."""
        raise NotImplementedError
