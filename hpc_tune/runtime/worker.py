"""The node agents of all ranks but 0: they find the attempt, wait for the head, join, and leave when it is over."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from hpc_tune.attempt import Attempt, Head, Outcome
from hpc_tune.durable import is_listed
from hpc_tune.errors import RunBusy
from hpc_tune.runtime.agent import Agent, NodeFailed, NodeSettings
from hpc_tune.runtime.granted import Place
from hpc_tune.runtime.head_watch import HEAD_SILENCE, HeadWatch
from hpc_tune.runtime.network import answers, free_ports, worker_address
from hpc_tune.runtime.ray_node import RayNode, RayNodeSpec

__all__ = ["WorkerAgent", "find_attempt"]

T = TypeVar("T")

STARTS = 3
"""How often a worker is started, each time with other ports, before its node counts as failed."""
_PAUSE = 0.1
"""Seconds between two looks at the shared directory while the cluster forms."""
_LOOK = 1.0
"""Seconds between two looks at it while the attempt runs."""


def find_attempt(settings: NodeSettings, place: Place) -> Attempt:
    """Return the attempt that the agent of rank 0 has made for this job step.

    Raises:
        RunBusy: if the job makes none.
        NodeFailed: if there is none in time.
    """
    refusal = settings.run.refusal_file(place.job)
    begun = time.monotonic()
    while True:
        for attempt in reversed(settings.run.attempts()):
            record = attempt.record()
            job = record.job if record else None
            if job and (job.job_id, job.restart_count) == (place.job.job_id, place.job.restart_count):
                return attempt
        if is_listed(refusal):
            raise RunBusy(refusal.read_text(encoding="utf-8"))
        if (seconds := time.monotonic() - begun) > settings.start_timeout:
            raise NodeFailed(f"the head node's agent has made no attempt in {seconds:.0f} s")
        time.sleep(_PAUSE)


class WorkerAgent(Agent):
    """A worker node's part."""

    _lost_head: Head | None = None

    def work(self) -> None:
        """Join the head once it answers; then wait for the end."""
        ray = self.new_ray()
        head = self._wait_for(self._head, "the head did not answer")
        if head is None:
            return
        if (running := self._join(ray, head)) is not None:
            self._stay(running, head)

    def finish(self, failure: str) -> None:
        """Do what the job script cannot do any more if it has died with the head's node."""
        if self._lost_head is None:
            return
        try:
            (self.attempt.path / "lost_head").mkdir()  # of several workers, one
        except FileExistsError:
            return
        reason = f"the head node {self._lost_head.node} is lost"
        self.attempt.end(Outcome("interrupted", reason, exit_code=1, cause="node"))
        run, way = self.settings.run, self.settings.next_attempt
        # Slurm keeps the job, which has --no-kill, although its script is gone
        command = [sys.executable, "-m", "hpc_tune", "conclude", str(run.path), f"--next={way}", "--end-job"]
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd="/", check=False)

    def _head(self) -> Head | None:
        """Return the head's address once it answers there."""
        head = Head.read(self.attempt.head_file) if is_listed(self.attempt.head_file) else None
        return head if head is not None and answers(head.address) else None

    def _is_over(self) -> bool:
        return is_listed(self.attempt.outcome_file)

    def _wait_for(self, condition: Callable[[], T | None], failure: str) -> T | None:
        """Return what the condition finds, or None when the attempt is over.

        Raises:
            NodeFailed: if it finds nothing in time.
        """
        while not (found := condition()):
            if self._is_over():
                return None
            if self.seconds > self.settings.start_timeout:
                raise NodeFailed(f"{failure} within {self.seconds:.0f} s")
            time.sleep(_PAUSE)
        return found

    def _join(self, ray: RayNode, head: Head) -> RayNode | None:
        """Start Ray until it has joined, and return it, or None when the attempt is over.

        Raises:
            NodeFailed: if it does not, with none of the ports that were tried, or not in time.
        """
        address = worker_address(self.settings.interface, head.address)
        for start in range(1, STARTS + 1):
            ports = free_ports(f"{self.attempt.path} {self.place.name} {start}")
            ray.start(RayNodeSpec(address, ports, self.resources, self.temp_dir, head=head.address))
            while ray.exit_code is None and not ray.up.wait(timeout=_PAUSE):
                if self._is_over():
                    return None
                if self.seconds > self.settings.start_timeout:
                    raise NodeFailed(f"Ray has not joined after {self.seconds:.0f} s: {ray.failure()}")
            if ray.up.is_set():
                self.joined(address)
                return ray
            if self._is_over():
                return None
            self.say(f"Ray ended at its start ({start} of {STARTS}): {ray.failure()}")
            if start < STARTS:
                ray = self.new_ray()
        raise NodeFailed(f"Ray did not start: {ray.failure()}")

    def _stay(self, ray: RayNode, head: Head) -> None:
        """Wait until the attempt is over.

        Raises:
            NodeFailed: if this node's Ray ends before, or the head is out of its reach.
        """
        watch = HeadWatch(self.attempt, head)
        while not self._is_over():
            self.told_to_stop()
            if ray.exit_code is not None and not self._is_over():
                raise NodeFailed(f"Ray ended: {ray.failure()}")
            seen = watch.look()
            if seen == "lost":
                self.say(f"the head on {head.node} is lost")
                self._lost_head = head
                return
            if seen == "out of reach":
                raise NodeFailed(f"the head on {head.node} has not answered for {HEAD_SILENCE:.0f} s")
            time.sleep(_LOOK)
