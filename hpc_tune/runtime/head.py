"""The node agent of rank 0: it makes the attempt, starts the head and the driver, and sees the attempt through."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace

from hpc_tune.attempt import Attempt, Head, Outcome
from hpc_tune.errors import SlurmError
from hpc_tune.progress import Progress
from hpc_tune.runtime.agent import Agent, NodeFailed, NodeSettings, unless_full
from hpc_tune.runtime.granted import Place
from hpc_tune.runtime.network import answers, free_ports, head_address
from hpc_tune.runtime.ray_node import RayNode, RayNodeSpec
from hpc_tune.slurm.client import Slurm

__all__ = ["HeadAgent"]

STARTS = 3
"""How often the head is started, each time with other ports, before its node counts as failed."""
_PAUSE = 0.05
"""Seconds between two looks at a starting head."""
_LOOK = 0.5
"""Seconds between two looks at a running attempt."""
_LAST_WORDS = 10.0
"""Seconds that the driver gets to save the search when Slurm ends the job."""
_LEAVE = 30.0
"""Seconds that the other agents get to leave after the attempt is over."""


class HeadAgent(Agent):
    """The head node's part."""

    def __init__(self, settings: NodeSettings, place: Place, attempt: Attempt) -> None:
        super().__init__(settings, place, attempt)
        self._phases: dict[str, float] = {}
        self._driver: subprocess.Popen[bytes] | None = None
        self._stop_passed_on = False
        self._all_counted = False
        self._slurm_ends = False

    def work(self) -> None:
        """Start the driver, which imports meanwhile, and the head; follow both to the end."""
        if self.attempt.outcome() is not None:
            return
        address = head_address(self.settings.interface, self.place.launch_address)
        self._driver = self._start_driver()
        ray = self._start_head(address)
        while self._driver.poll() is None:
            if ray.exit_code is not None:
                raise NodeFailed(f"the head of Ray ended: {ray.failure()}")
            if ray.up.is_set() and not self.is_up:
                self.joined(address)
            self._count_nodes()
            self._pass_on_stop()
            with suppress(subprocess.TimeoutExpired):
                self._driver.wait(timeout=_LOOK)

    def _start_driver(self) -> subprocess.Popen[bytes]:
        run, timeout = self.settings.run, self.settings.start_timeout
        command = [sys.executable, "-m", "hpc_tune.runtime.driver", str(run.path), str(self.attempt.path)]
        with self.attempt.driver_log.open("ab") as log:
            return subprocess.Popen(
                [*command, f"--start-timeout={timeout}", f"--patience={self.settings.patience}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd="/",
                start_new_session=True,
            )

    def _start_head(self, address: str) -> RayNode:
        """Start the head and publish its address as soon as it answers.

        Raises:
            NodeFailed: if it does not, with none of the ports that were tried, or not in time.
        """
        for start in range(1, STARTS + 1):
            ports = free_ports(f"{self.attempt.path} {start}")
            ray = self.new_ray()
            ray.start(RayNodeSpec(address, ports, self.resources, self.temp_dir))
            gcs = f"{address}:{ports.gcs}"
            while ray.exit_code is None and not answers(gcs):
                if self.seconds > self.settings.start_timeout:
                    raise NodeFailed(f"the head of Ray does not answer after {self.seconds:.0f} s: {ray.failure()}")
                time.sleep(_PAUSE)
            if ray.exit_code is None:
                self._phases["gcs_up"] = time.time()
                Head(gcs, self.place.name, time.time()).write(self.attempt.head_file)
                return ray
            self.say(f"the head of Ray ended at its start ({start} of {STARTS}): {ray.failure()}")
        raise NodeFailed(f"the head of Ray did not start: {ray.failure()}")

    def _count_nodes(self) -> None:
        """Note when the last node has joined; say once which ones have not when the time for it is over."""
        if self._all_counted:
            return
        ups = [node.up for node in self.attempt.nodes() if node.up is not None]
        if len(ups) == self.place.nodes:
            self._all_counted = True
            self._phases["nodes_up"] = max(ups)
            self.say(f"all {len(ups)} nodes have joined after {self.seconds:.1f} s")
        elif self.seconds > self.settings.start_timeout:
            self._all_counted = True
            self.say(f"going on with {self.attempt.joined_sentence(self.seconds)}")

    def _pass_on_stop(self) -> None:
        """Have the driver save and end when the allocation ends, as the job script was told, or its owner asks."""
        if not self._stop_passed_on and self.told_to_stop() and self._driver is not None:
            self._stop_passed_on = True
            self.say("the allocation is about to end: saving the search")
            self._driver.terminate()

    def terminated(self) -> None:
        """Give the driver a moment to save. Its own SIGTERM came with ours; a second one says: at once."""
        self._slurm_ends = True
        cause = self.settings.run.stop_cause(self.place.job)
        reason = {"walltime": "the walltime is over", "cancelled": "it was cancelled"}.get(cause, "Slurm ended the job")
        if cause == "terminated" and self.settings.guardian.is_gone:
            cause, reason = "node", "the head node's agent was killed"
        self.attempt.end(Outcome("interrupted", reason, exit_code=1, cause=cause))
        if self._driver is not None:
            self._driver.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._driver.wait(timeout=_LAST_WORDS)

    def finish(self, failure: str) -> None:
        """Put on record how the attempt ended, where the driver could not, and when it had reached what."""
        if failure:
            self.attempt.end(self._failed(f"{self.place.name}: {failure}"))
        elif self._driver is not None and self._driver.returncode is not None:
            self.attempt.end(Outcome.of_driver(self._driver.returncode, self.attempt))
        record = self.attempt.record()
        if record is not None:
            with unless_full():
                replace(record, phases=self._phases | self._driver_phases()).write(self.attempt.record_file)
        if not self._slurm_ends:
            self._see_off()

    def _see_off(self) -> None:
        """End the job step if agents do not leave it: one that hangs would hold the job until its walltime."""
        deadline = time.monotonic() + _LEAVE
        while staying := self._staying():
            if time.monotonic() > deadline or staying <= self._silent():
                self.say(f"{', '.join(sorted(staying))} should have left by now: ending the job step")
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is for all agents
                with suppress(SlurmError):
                    Slurm().cancel([self.place.step])
                return
            time.sleep(_LOOK)

    def _staying(self) -> set[str]:
        """Return the nodes whose agents have not said that they end."""
        record = self.attempt.record()
        left = {node.name for node in self.attempt.nodes() if node.state in ("failed", "ended")}
        return set(record.job.nodes if record and record.job else ()) - left

    def _silent(self) -> set[str]:
        """Return the nodes that will say nothing any more: the lost ones, and those that never came.

        The agent of one that comes just now has nothing to clear up.
        """
        progress = Progress.read(self.attempt.progress_file)
        lost = progress.lost if progress else ()
        shown = self.attempt.nodes()
        absent = self._staying() - {node.name for node in shown}
        return absent | {node.name for node in shown if node.address in lost}

    def _failed(self, reason: str) -> Outcome:
        """Return the outcome where this node failed: the next attempt may do better unless this one never began."""
        hint = f"see {self.attempt.node_log(self.place.name)}"
        if "driver_up" in self._driver_phases():
            return Outcome("interrupted", reason, exit_code=1, hint=hint, cause="node")
        return Outcome("failed", reason, exit_code=1, hint=hint)

    def _driver_phases(self) -> dict[str, float]:
        progress = Progress.read(self.attempt.progress_file)
        return progress.phases if progress else {}
