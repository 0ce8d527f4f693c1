"""What the node agents of all ranks have in common: a node's record, log, temporary directory and clean-up."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from hpc_tune.attempt import Attempt, NodeRecord, NodeState
from hpc_tune.durable import is_full, is_listed
from hpc_tune.errors import HpcTuneError
from hpc_tune.process import end_marked
from hpc_tune.run import RunDir
from hpc_tune.runtime.environment import attempt_environment
from hpc_tune.runtime.granted import Place, Resources
from hpc_tune.runtime.guardian import Guardian
from hpc_tune.runtime.ray_node import RayNode, copy_ray_logs

__all__ = ["Agent", "NodeFailed", "NodeSettings", "Terminated", "log", "unless_full"]

log = logging.getLogger("hpc_tune")

LEAST_FREE = 100 * 2**20
"""Bytes that a node's temporary directory must have free, for Ray's logs."""


class NodeFailed(HpcTuneError):
    """This node cannot take part in the attempt, or no longer."""


class Terminated(BaseException):
    """Slurm ends the job: at once, and all of its processes."""


@dataclass(frozen=True)
class NodeSettings:
    """What the job script tells the agents."""

    run: RunDir
    temp_dir: Path
    interface: str | None
    min_nodes: int
    start_timeout: float
    """Seconds from the agent's start within which its node must have joined, or, for rank 0, the quorum."""
    retry_errors: bool
    """Start failed trials again, in the first attempt of a chain."""
    patience: float
    """Seconds that running trials get to report once more when the allocation is about to end."""
    job_start: float
    """When the job script began, in seconds since the epoch."""
    next_attempt: str = "successor"
    """How the site wants the next attempt to be started."""
    guardian: Guardian = field(default_factory=Guardian)


@contextmanager
def unless_full() -> Iterator[None]:
    """Go on without writing where the disk is full: what counts is that the attempt ends, and says why."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise


class Agent(ABC):
    """One node's part in an attempt."""

    def __init__(self, settings: NodeSettings, place: Place, attempt: Attempt) -> None:
        self.settings = settings
        self.place = place
        self.attempt = attempt
        self.temp_dir = Path()
        self.environment: dict[str, str] = {}
        self.resources = Resources.from_environment(os.environ)
        self._begun = time.monotonic()
        self._record = NodeRecord(
            place.name, place.rank, "starting", time.time(), cpus=self.resources.cpus, gpus=self.resources.gpus
        )
        attempt.nodes_dir.mkdir(mode=0o700, exist_ok=True)
        self.log: BinaryIO = attempt.node_log(place.name).open("ab")
        self._sessions: list[int] = []
        self._note("starting")

    @property
    def is_up(self) -> bool:
        """Whether this node has joined."""
        return self._record.up is not None

    @property
    def _stop_file(self) -> Path:
        return self.temp_dir / "stop"

    def told_to_stop(self) -> bool:
        """Tell whether the allocation is about to end, and pass it on to the trials of this node.

        Trials look at the node's own disk, as often as they like; the shared file system is asked by one process.
        """
        job = self.place.job
        if not self._stop_file.exists() and is_listed(self.settings.run.stop_marker(job.job_id, job.restart_count)):
            self._stop_file.touch()
        return self._stop_file.exists()

    @property
    def seconds(self) -> float:
        """Seconds since the agent began."""
        return time.monotonic() - self._begun

    def serve(self) -> int:
        """Take part until the attempt is over, and leave nothing behind; the exit code is 1 if this node failed."""
        failure = ""
        try:
            with self._private_temp_dir() as self.temp_dir, self._cleaning_up():
                self.environment = attempt_environment(
                    os.environ, self.attempt, self.settings.run.code, stop_file=self._stop_file
                )
                # Slurm's own choice is /tmp; what trials and their libraries leave in ours goes with it
                if self.environment.get("TMPDIR", "/tmp") == "/tmp":
                    self.environment["TMPDIR"] = str(self.temp_dir)
                self.work()
        except Terminated:
            self.say("Slurm ends the job")
        except HpcTuneError as error:  # also what a look for addresses and ports finds wrong
            failure = f"{error.message}; {error.hint}" if error.hint else error.message
            self.say(failure)
        self._note("failed" if failure else "ended", failure)
        self.finish(failure)
        with unless_full():
            self.log.close()
        return 1 if failure else 0

    @abstractmethod
    def work(self) -> None:
        """Return when the attempt is over.

        Raises:
            NodeFailed: if this node cannot take part any more.
        """

    def terminated(self) -> None:  # noqa: B027 - a worker has nothing to add
        """Do what is left to do when Slurm ends the job."""

    def finish(self, failure: str) -> None:  # noqa: B027
        """Do what is left to do when nothing of the attempt is left on this node."""

    @contextmanager
    def _cleaning_up(self) -> Iterator[None]:
        """End all of the attempt on this node before its temporary directory goes; keep what Ray said of a failure."""
        try:
            yield
        except NodeFailed:
            with suppress(OSError):
                copy_ray_logs(self.temp_dir, self.attempt.nodes_dir / self.place.name)
            raise
        except Terminated:
            self.terminated()
            raise
        finally:
            end_marked(self._mark, self._sessions)

    @property
    def _mark(self) -> str:
        return str(self.attempt.path)

    def _note(self, state: NodeState, reason: str = "", *, up: float | None = None, address: str = "") -> None:
        """Put on record what became of this node."""
        known = {"up": up, "address": address} if up is not None else {}
        self._record = replace(self._record, state=state, reason=reason, **known)  # type: ignore[arg-type]
        with unless_full():
            self._record.write(self.attempt.node_file(self.place.name))

    def say(self, sentence: str) -> None:
        """Add a line of our own to the node's log and to the batch log."""
        log.info("%s: %s", self.place.name, sentence)
        with unless_full():
            self.log.write(f"{time.strftime('%H:%M:%S')} {sentence}\n".encode())
            self.log.flush()

    def new_ray(self) -> RayNode:
        """Import Ray in a process of its own, to be told later what to start."""
        ray = RayNode(self.environment, self.attempt.node_log(self.place.name))
        self._sessions.append(ray.session)
        return ray

    def joined(self, address: str) -> None:
        """Put on record that this node is part of the cluster."""
        self._note("up", up=time.time(), address=address)
        self.say(f"joined after {self.seconds:.1f} s")

    @contextmanager
    def _private_temp_dir(self) -> Iterator[Path]:
        """Yield a directory of ours alone on the node's own disk: Ray makes its own readable to everybody.

        Raises:
            NodeFailed: if there is no room.
        """
        root = self.settings.temp_dir
        try:
            free = shutil.disk_usage(root).free
            if free < LEAST_FREE:
                raise NodeFailed(f"{root} has {free // 2**20} MB free; Ray needs {LEAST_FREE // 2**20} MB")
            path = Path(tempfile.mkdtemp(prefix="hpc-tune-", dir=root))
        except OSError as error:
            raise NodeFailed(f"no temporary directory can be made in {root}: {error.strerror}") from error
        with self.settings.guardian.watching(self._mark, path):
            try:
                yield path
            finally:
                shutil.rmtree(path, ignore_errors=True)
