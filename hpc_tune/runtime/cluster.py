"""How the driver comes to a Ray: one of its own on this machine, or that of its allocation."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from hpc_tune.attempt import Attempt, AttemptRecord, Head
from hpc_tune.errors import RunError
from hpc_tune.experiment.capacity import Node
from hpc_tune.runtime.ray_start import leave_out_dashboard

__all__ = ["Cluster", "LocalRay", "SlurmRay"]

T = TypeVar("T")

_PAUSE = 0.05
"""Seconds between two looks at the run directory or at Ray's list of nodes while a cluster forms."""
_LOOK = 1.0
"""Seconds between two looks at the records of all nodes."""


class Cluster(Protocol):
    """A Ray that trials run on."""

    @property
    def nodes(self) -> list[Node]:
        """What its nodes offer, once all have joined."""

    def connect(self) -> None:
        """Return once trials can start.

        Raises:
            RunError: if it does not come to that.
        """

    def disconnect(self) -> None:
        """Leave it; one that the driver has started ends."""


class LocalRay:
    """A Ray that the driver starts for itself and that ends with it."""

    def __init__(self, attempt: Attempt, record: AttemptRecord, temp_dir: Path) -> None:
        self._attempt = attempt
        self._temp_dir = temp_dir
        self.nodes = [Node(record.cpus, record.gpus)]

    def connect(self) -> None:
        """Start Ray."""
        import ray

        leave_out_dashboard()
        try:
            ray.init(
                address="local",
                num_cpus=int(self.nodes[0].cpus),
                num_gpus=int(self.nodes[0].gpus),
                include_dashboard=False,
                log_to_driver=False,
                _temp_dir=str(self._temp_dir),
            )
        except (RuntimeError, OSError, ConnectionError) as error:
            raise RunError(f"Ray did not start: {error}", hint=f"see {self._attempt.driver_log}") from error

    def disconnect(self) -> None:
        """End Ray at once: it would give each of its processes a second for a farewell, and the raylet takes longer."""
        import ray

        node = ray._private.worker._global_node
        if node is not None:
            kill = node.kill_all_processes
            node.kill_all_processes = lambda **_: kill(check_alive=False, allow_graceful=False)
        ray.shutdown()


class SlurmRay:
    """The Ray that the node agents of a Slurm job form."""

    def __init__(self, attempt: Attempt, record: AttemptRecord, start_timeout: float) -> None:
        self._attempt = attempt
        self._record = record
        self._begun = time.monotonic()
        self._timeout = start_timeout
        self._look = 0.0
        self.nodes = [Node(record.cpus, record.gpus)] * record.nodes

    def connect(self) -> None:
        """Join the head as soon as it answers, and wait for the quorum; late nodes join while trials run."""
        import ray  # noqa: F401 - imported while the head starts, which takes as long

        head = self._wait_for(lambda: Head.read(self._attempt.head_file), "the head did not answer")
        self._wait_for(lambda: self._init(head), "Ray on the head node did not answer")
        self._wait_for(self._has_quorum, "")

    def disconnect(self) -> None:
        """Leave the cluster to the node agents."""
        import ray

        ray.shutdown()

    def _init(self, head: Head) -> bool:
        import ray

        try:
            ray.init(address=head.address, log_to_driver=False, _node_ip_address=head.address.rpartition(":")[0])
        except (RuntimeError, OSError, ConnectionError):  # the head's raylet registers a moment after its GCS answers
            ray.shutdown()
            return False
        return True

    def _has_quorum(self) -> bool:
        import ray

        if sum(bool(node["Alive"]) for node in ray.nodes()) >= self._record.min_nodes:
            return True
        if time.monotonic() > self._look:
            self._look = time.monotonic() + _LOOK
            failed = sum(node.state == "failed" for node in self._attempt.nodes())
            if self._record.nodes - failed < self._record.min_nodes:
                raise self._in_vain("")
        return False

    def _wait_for(self, condition: Callable[[], T | None], failure: str) -> T:
        while not (found := condition()):
            if time.monotonic() - self._begun > self._timeout:
                raise self._in_vain(failure)
            time.sleep(_PAUSE)
        return found

    def _in_vain(self, failure: str) -> RunError:
        return RunError(
            failure or self._attempt.joined_sentence(time.monotonic() - self._begun),
            hint=f"see hpc-tune status {self._attempt.run_path}, and the logs in {self._attempt.nodes_dir}",
        )
