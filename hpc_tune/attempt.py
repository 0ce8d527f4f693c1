"""Attempts: the starts of a run, with the records that each leaves."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from hpc_tune.durable import is_full, read_json, write_json
from hpc_tune.room import as_size, largest

__all__ = [
    "Attempt",
    "AttemptRecord",
    "Cancellation",
    "Head",
    "NodeRecord",
    "Outcome",
    "Record",
    "SlurmJob",
    "Submission",
]

LEAST_FREE = 2**20
"""Bytes below which a disk counts as full."""
RESERVE = 2**14
"""Bytes that an outcome takes at the most, and a file system's smallest pieces."""

Ending = Literal["completed", "interrupted", "failed"]
Cause = Literal["", "walltime", "cancelled", "terminated", "preempted", "signal", "driver", "node"]
"""``terminated``: Slurm ended the job's processes, and ``preempted``: while the job was to go on; ``signal``: its owner
did, on this machine; ``driver``, ``node``: they died."""
NodeState = Literal["starting", "up", "failed", "ended"]


class Record:
    """A dataclass that is kept as one JSON file. Keys that this version does not know are passed over."""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return what the file says, or None when there is none yet, or not a whole one."""
        record = read_json(path)
        try:
            return None if record is None else cls.from_json(record)
        except TypeError:  # keys are missing
            return None

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Return the record that the JSON object stands for."""
        known = {each.name for each in fields(cls)}  # type: ignore[arg-type]  # every subclass is a dataclass
        return cls(**{key: value for key, value in record.items() if key in known})

    def write(self, path: Path) -> None:
        """Replace the file in one step."""
        write_json(path, asdict(self))  # type: ignore[call-overload]  # every subclass is a dataclass


@dataclass(frozen=True)
class Outcome(Record):
    """How an attempt ended. ``interrupted`` can go on; ``failed`` needs its owner first."""

    ending: Ending
    reason: str
    exit_code: int = 0
    ended: float = 0.0
    hint: str | None = None
    cause: Cause = ""
    """Why an attempt was interrupted, for whoever decides if the next one may start by itself."""

    @classmethod
    def of_full_disk(cls, attempt: Attempt, *, quota: bool = False) -> Self:
        """Say that nothing more can be written, where, and which of the runs there take the most room."""
        disk = next(path for path in (attempt.path, *attempt.path.parents) if path.is_mount())
        what = f"the quota on {disk} is used up" if quota else f"no space is left on {disk}"
        taken = [f"{path.name} ({as_size(size)})" for path, size in largest(attempt.run_path.parent).items()]
        room = f"make room: {attempt.run_path.parent} holds {', '.join(taken)}" if taken else "make room"
        return cls(
            "failed",
            f"{what}, the file system of {attempt.run_path}",
            exit_code=1,
            hint=f"{room}; then: hpc-tune resume {attempt.run_path}",
        )

    @classmethod
    def of_driver(cls, returncode: int, attempt: Attempt) -> Self:
        """Say how a driver ended that could not say it itself."""
        if shutil.disk_usage(attempt.path).free < LEAST_FREE:
            return cls.of_full_disk(attempt)
        if returncode < 0:
            name = signal.Signals(-returncode).name
            return cls("interrupted", f"the driver was ended by {name}", exit_code=1, cause="driver")
        return cls(
            "failed", f"the driver ended with exit code {returncode}", exit_code=1, hint=f"see {attempt.driver_log}"
        )


@dataclass(frozen=True)
class SlurmJob(Record):
    """The Slurm job that an attempt runs in; a requeued job keeps its id and counts its restarts."""

    job_id: str
    restart_count: int = 0
    cluster: str = ""
    partition: str = ""
    nodes: tuple[str, ...] = ()
    """The names of all nodes, by rank."""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Return the job, its nodes as a tuple."""
        return super().from_json({**record, "nodes": tuple(record.get("nodes", ()))})


@dataclass(frozen=True)
class AttemptRecord(Record):
    """What an attempt was given."""

    kind: Literal["local", "resume", "slurm"]
    host: str
    """Where the driver runs; on Slurm the head node."""
    cpus: float
    """Of each node, for trials."""
    gpus: float
    """Of each node, for trials."""
    nodes: int = 1
    min_nodes: int = 1
    """How many nodes must have joined before trials start."""
    retry_errors: bool = False
    step: str = ""
    """The job step of the node agents: ``4711.0``; empty without Slurm."""
    started: float = 0.0
    """When the job, or here the command, began. Seconds since the epoch, as all times of records."""
    job: SlurmJob | None = None
    phases: dict[str, float] = field(default_factory=dict)
    """When what was reached: ``gcs_up``, ``nodes_up`` (all of them), ``driver_up``, ``first_trial``, ``first_result``.
    Written when the attempt ends; those of a live one are in the records of its head, nodes and driver."""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Return the record, the job in it included."""
        job = record.get("job")
        return super().from_json({**record, "job": SlurmJob.from_json(job) if job else None})


@dataclass(frozen=True)
class NodeRecord(Record):
    """What became of one node of an attempt; written by its node agent alone."""

    name: str
    rank: int
    state: NodeState
    started: float
    """When its agent began."""
    up: float | None = None
    """When its Ray had joined the cluster."""
    cpus: float = 0
    gpus: float = 0
    address: str = ""
    """Its IP address."""
    reason: str = ""
    """Why it failed or ended, in a sentence."""


@dataclass(frozen=True)
class Head(Record):
    """Where an attempt's Ray is to be found; published by the head's node agent once it answers."""

    address: str
    """``IP:port`` of Ray's global control store."""
    node: str
    up: float


@dataclass(frozen=True)
class Submission(Record):
    """A job that was sent to Slurm for a run."""

    job_id: str
    cluster: str
    """The cluster's name where sbatch named one, else empty."""
    submitted: float
    by: Literal["submit", "resume", "successor"]


@dataclass(frozen=True)
class Cancellation(Record):
    """That somebody ended a job, or an attempt on their own machine. Whoever finds it starts no further attempt."""

    by: str
    """The user's name."""
    host: str
    time: float


@dataclass(frozen=True)
class Attempt:
    """One start of a run.

    ```text
    attempts/001/
      attempt.json      what it was given
      progress.json     what the search looks like now
      outcome.json      how it ended
      cancelled         on this machine: by whom it was ended; a job's lies in jobs/
      token             the secret of its Ray (0600)
      driver.log
      head.json         on Slurm: the head's address
      nodes/            on Slurm: iris-169.json, iris-169.log, and Ray's own logs of nodes that failed
    ```
    """

    path: Path

    @property
    def number(self) -> int:
        """The attempt's number, from 1."""
        return int(self.path.name)

    @property
    def record_file(self) -> Path:
        """What the attempt was given; written by whoever starts it: the command here, the head's agent on Slurm."""
        return self.path / "attempt.json"

    @property
    def progress_file(self) -> Path:
        """What the search looks like now; replaced by the driver every second or so."""
        return self.path / "progress.json"

    @property
    def outcome_file(self) -> Path:
        """How the attempt ended; absent while it is live, or when nobody was left to write it."""
        return self.path / "outcome.json"

    @property
    def cancel_file(self) -> Path:
        """By whom an attempt on this machine was ended; absent where nobody did."""
        return self.path / "cancelled"

    @property
    def driver_log(self) -> Path:
        """Everything that the driver and Ray said."""
        return self.path / "driver.log"

    @property
    def token_file(self) -> Path:
        """The secret without which nobody talks to this attempt's Ray (0600)."""
        return self.path / "token"

    @property
    def reserve_file(self) -> Path:
        """Room for the outcome, should the disk become full."""
        return self.path / ".reserve"

    @property
    def head_file(self) -> Path:
        """The address of the head; absent until it answers."""
        return self.path / "head.json"

    @property
    def nodes_dir(self) -> Path:
        """The records and logs of the node agents."""
        return self.path / "nodes"

    def node_file(self, node: str) -> Path:
        """The record of one node."""
        return self.nodes_dir / f"{node}.json"

    def node_log(self, node: str) -> Path:
        """What a node's agent and its Ray said."""
        return self.nodes_dir / f"{node}.log"

    def record(self) -> AttemptRecord | None:
        """Return what the attempt was given, or None before that is written."""
        return AttemptRecord.read(self.record_file)

    def nodes(self) -> list[NodeRecord]:
        """Return the nodes that have shown themselves, by rank."""
        found = (NodeRecord.read(path) for path in self.nodes_dir.glob("*.json"))
        return sorted((each for each in found if each is not None), key=lambda each: each.rank)

    @property
    def run_path(self) -> Path:
        """The run's directory."""
        return self.path.parent.parent

    def joined_sentence(self, seconds: float) -> str:
        """Say how many nodes have joined and what is known of the others."""
        record, nodes = self.record(), self.nodes()
        joined = {node.name for node in nodes if node.up is not None}
        wanted = record.nodes if record else len(nodes)
        sentence = f"{len(joined)} of {wanted} nodes after {seconds:.0f} s"
        reasons = {node.name: node.reason for node in nodes}
        expected = record.job.nodes if record and record.job else ()
        missing = [name for name in dict.fromkeys([*expected, *reasons]) if name not in joined]
        if missing:
            sentence += "; missing " + ", ".join(
                f"{name} ({reasons[name]})" if reasons.get(name) else name for name in missing
            )
        return sentence

    def outcome(self) -> Outcome | None:
        """Return how the attempt ended, or None when that is not on record."""
        return Outcome.read(self.outcome_file)

    def begin(self, record: AttemptRecord) -> None:
        """Draw the secret of the attempt's Ray, and put on record what the attempt was given."""
        descriptor = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        self.reserve_file.write_bytes(os.urandom(RESERVE))  # what could be compressed would keep no room
        record.write(self.record_file)

    def end(self, outcome: Outcome) -> None:
        """Put on record how the attempt ended, unless it is already; also on a disk that has become full."""
        if self.outcome_file.exists():
            return
        record = asdict(outcome) | {"ended": time.time()}
        try:
            write_json(self.outcome_file, record)
        except OSError as error:
            if not is_full(error):
                raise
            self.reserve_file.unlink(missing_ok=True)
            write_json(self.outcome_file, record)
