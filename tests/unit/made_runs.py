"""Run directories made by hand, and a Slurm that says what it is told to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpc_tune.attempt import Attempt, AttemptRecord, Cancellation, NodeRecord, Outcome, SlurmJob, Submission
from hpc_tune.errors import SlurmError
from hpc_tune.progress import Best, Progress
from hpc_tune.run import RunDir
from hpc_tune.slurm.commands import JobInfo
from hpc_tune.slurm.states import JobState

NODES = ("iris-169", "iris-170", "iris-171", "iris-172")


@dataclass
class FakeSlurm:
    """Keeps the protocol of hpc_tune.slurm.client.Slurm."""

    known: dict[str, JobInfo] = field(default_factory=dict)
    silent: str | None = None
    asked: list[list[str]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    refuses: bool = False

    def has(self, job_id: str, state: JobState, **facts: Any) -> FakeSlurm:
        self.known[job_id] = JobInfo(job_id, state, **facts)
        return self

    def jobs(self, ids: Iterable[str]) -> dict[str, JobInfo]:
        wanted = list(ids)
        self.asked.append(wanted)
        if self.silent:
            raise SlurmError(self.silent)
        return {job_id: self.known.get(job_id, JobInfo(job_id)) for job_id in wanted}

    def cancel(self, ids: Iterable[str], *, signal: str | None = None) -> None:
        if self.refuses:
            raise SlurmError("scancel: Access/permission denied")
        for job_id in ids:
            self.cancelled.append(job_id)
            self.known[job_id] = replace(self.known[job_id], state=JobState.CANCELLED)


class MadeRun:
    """A run whose records a test writes as drivers, agents and commands would."""

    def __init__(self, run: RunDir) -> None:
        self.run = run

    def submitted(self, job_id: str, *, ago: float = 0.0, by: Any = "submit") -> None:
        self.run.jobs_dir.mkdir(exist_ok=True)
        Submission(job_id, "", time.time() - ago, by).write(self.run.jobs_dir / f"{job_id}.json")

    def cancelled(self, job_id: str) -> None:
        Cancellation("ada", "login1", time.time()).write(self.run.cancel_file(job_id))

    def attempt(
        self,
        job_id: str | None = None,
        *,
        restart: int = 0,
        ago: float = 100.0,
        nodes: int = 1,
        names: tuple[str, ...] = (),
        progress: Progress | None = None,
        seen: float | None = None,
        outcome: Outcome | None = None,
        **given: Any,
    ) -> Attempt:
        """Make an attempt that began ``ago`` seconds ago and gave its last sign of life ``seen`` seconds ago."""
        attempt = self.run.new_attempt()
        job = SlurmJob(job_id, restart, partition="gpu", nodes=names) if job_id else None
        kind: Any = "slurm" if job_id else "local"
        AttemptRecord(
            kind, "here", 4, 1, nodes=nodes, started=time.time() - ago, job=job, **given
        ).write(attempt.record_file)  # fmt: skip
        if progress is not None:
            progress.write(attempt.progress_file)
            age(attempt.progress_file, seen or 0.0)
        if outcome is not None:
            outcome.write(attempt.outcome_file)
        return attempt

    def node(self, attempt: Attempt, name: str, rank: int, state: Any, *, log: str | None = None, **known: Any) -> None:
        attempt.nodes_dir.mkdir(exist_ok=True)
        NodeRecord(name, rank, state, time.time(), **known).write(attempt.node_file(name))
        if log is not None:
            attempt.node_log(name).write_text(log)

    def trial(self, name: str, output: str | None = None, error: str | None = None) -> Path:
        folder = self.run.storage / name
        folder.mkdir()
        if output is not None:
            (folder / "output.log").write_text(output)
        if error is not None:
            (folder / "error.txt").write_text(error)
        return folder


def age(path: Path, seconds: float) -> None:
    """Make a file look as if it had been written some seconds ago."""
    when = time.time() - seconds
    os.utime(path, (when, when))


def searching(total: int = 8, best: float | None = None, phase: str = "running", **states: int) -> Progress:
    """Return the progress of a search; the best value belongs to trial ``t_3``."""
    found = None if best is None else Best("t_3", best, 7, {"lr": 0.1})
    return Progress(phase, total=total, states=states, slots=4, iterations=20, best=found, elapsed=50.0)


def ended(ending: Any, reason: str, *, ago: float = 0.0) -> Outcome:
    return Outcome(ending, reason, ended=time.time() - ago)
