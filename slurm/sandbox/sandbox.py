"""A throw-away Slurm cluster: start it, use it, break its nodes, remove it."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from .config import DEFAULT_STATE_DIR, SandboxConfig
from .configuration import write_all
from .daemons import Daemons
from .errors import SandboxError
from .layout import Layout
from .network import Network
from .packages import check_machine, check_root
from .processes import as_user, call, children, run
from .status import UNKNOWN, NodeStatus, SandboxState, SandboxStatus, parse_node_states
from .waiting import wait_until

__all__ = ["Sandbox"]

log = logging.getLogger(__name__)

SINFO = ("sinfo", "--noheader", "--Node", "--format=%N %T")
SINFO_SECONDS = 5.0
READY_STATES = ("idle", "mixed", "allocated")


class Sandbox:
    """A Slurm of several nodes on this machine, all of it below one state directory.

    As a context manager it is up inside the block, and gone after it unless it was up before.

        with Sandbox(SandboxConfig(nodes=2)) as sandbox:
            sandbox.run(["sbatch", "--wait", "job.sh"], user="nobody")

    Everything but `status` and `env` needs root. A running sandbox keeps the settings that it was started with.
    """

    def __init__(self, config: SandboxConfig | None = None) -> None:
        self.config = config or SandboxConfig()
        self._layout = Layout(self.config.state_dir)
        self._started_here = False

    @classmethod
    def load(cls, state_dir: Path = DEFAULT_STATE_DIR) -> Sandbox:
        """Return the sandbox of a state directory with the settings that it was started with.

        Raises:
            SandboxError: There is none.
        """
        return cls(Layout(state_dir).read_config())

    def __enter__(self) -> Self:
        try:
            self._started_here = self.up()
        except BaseException:
            with suppress(SandboxError):
                self.down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started_here:
            self.down()

    def up(self) -> bool:
        """Start the sandbox and wait until all nodes are idle; leftovers of a dead one are removed first.

        Returns:
            Whether it was started; False if it was up already, then nothing changes, the settings included.

        Raises:
            SandboxUnavailableError: Not root, or packages are missing.
            SandboxError: A daemon failed; what was started stays for a look at it, until `down`.
        """
        check_machine(self.config.accounting)
        with self._layout.locked():
            if self.status().state is SandboxState.UP:
                return False
            self._remove()
            self._start()
        return True

    def down(self) -> bool:
        """End all processes of the sandbox and delete all it has; works on a half-started or dead one, too.

        Returns:
            Whether there was anything to remove.
        """
        check_root()
        if not self._layout.root.exists():
            return False
        with self._layout.locked():
            found = self._layout.exists()
            self._remove()
            self._layout.root.rmdir()
        return found

    def status(self) -> SandboxStatus:
        """Return what runs; asks slurmctld once, and does not fail if it is silent."""
        if not self._layout.exists():
            return SandboxStatus(SandboxState.DOWN, str(self._layout.root))
        config = self._layout.read_config()
        daemons = Daemons(self._layout, config)
        alive = {name: daemons.is_alive(name) for name in daemons.controllers}
        complete = all(alive.values()) and self._layout.ready.exists()
        return SandboxStatus(
            state=SandboxState.UP if complete else SandboxState.BROKEN,
            state_dir=str(self._layout.root),
            slurm_conf=str(self._layout.slurm_conf),
            subnet=Network.load(self._layout, config).subnet if self._layout.network.exists() else "",
            daemons=alive,
            nodes=self._node_statuses(daemons, ask=all(alive.values())),
        )

    def kill_node(self, name: str) -> None:
        """Let a node fail: cut its cable, so that its peers hear nothing any more, and kill all that runs on it.

        Slurm notices within 30 s after `slurmd_timeout`. Killing a dead node changes nothing.
        """
        daemons = self._running(name)
        with self._layout.locked():
            Network.load(self._layout, daemons.config).set_cable(name, plugged=False)
            daemons.end(name)
        earliest = daemons.config.slurmd_timeout
        log.info("%s is dead; Slurm will call it down in %d to %d s", name, earliest, earliest + 30)

    def heal_node(self, name: str) -> None:
        """Start a killed node again, with an empty /tmp, and wait until Slurm uses it; a live one is left alone.

        Raises:
            SandboxError: It did not come back before `start_timeout`.
        """
        daemons = self._running(name)
        with self._layout.locked():
            if not daemons.is_alive(name):
                Network.load(self._layout, daemons.config).set_cable(name, plugged=True)
                daemons.start_node(name)
            daemons.wait_for(name, lambda: self._slurm_states().get(name) in READY_STATES, daemons.config.start_timeout)

    def wait_idle(self, seconds: float = 60.0) -> None:
        """Wait until no node has a job any more, nor is down.

        Raises:
            SandboxTimeoutError: One still has after `seconds`.
        """
        names = self._layout.read_config().node_names
        wait_until(lambda: self._are_idle(names), f"all {len(names)} nodes are idle", seconds)

    def env(self) -> dict[str, str]:
        """Return the variables that make Slurm's commands talk to this sandbox."""
        self._layout.read_config()
        return {"SLURM_CONF": str(self._layout.slurm_conf)}

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout: float | None = 60.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the login node, which is this machine, as root or another user.

        Raises:
            SandboxError: With `check`, if the command fails; also if it takes longer than `timeout`.
        """
        environment = {**self.env(), **(env or {})}
        return run(as_user(user, argv), env=environment, stdin=stdin, timeout=timeout, check=check)

    def exec(
        self,
        node: str,
        argv: Sequence[str | Path],
        *,
        user: str | None = None,
        timeout: float | None = 60.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a node, outside of any job, in the directory `/`: it sees the node's /tmp and processes.

        Raises:
            SandboxError: The node is dead; with `check`, if the command fails; if it takes longer than `timeout`.
        """
        return run(self._enter(node, as_user(user, argv)), env=self.env(), timeout=timeout, check=check)

    def call(self, node: str, argv: Sequence[str | Path]) -> int:
        """Like `exec`, but the command owns the terminal; returns its exit code."""
        return call(self._enter(node, argv), env=self.env())

    def _start(self) -> None:
        began = time.monotonic()
        self._layout.create(self.config)
        network = Network.create(self._layout, self.config)
        write_all(self._layout, network)
        daemons = Daemons(self._layout, self.config)
        daemons.start_munged()
        if self.config.accounting:
            daemons.start_database()
            daemons.start_slurmdbd()
        daemons.start_slurmctld()
        for node in self.config.node_names:
            daemons.start_node(node)
        daemons.wait_for("slurmctld", lambda: self._all_idle(daemons), self.config.start_timeout)
        self._layout.ready.touch()
        log.info("%d of %d nodes idle after %.1f s", self.config.nodes, self.config.nodes, time.monotonic() - began)

    def _all_idle(self, daemons: Daemons) -> bool:
        daemons.check_alive(*daemons.controllers, *self.config.node_names)
        return self._are_idle(self.config.node_names)

    def _are_idle(self, nodes: Sequence[str]) -> bool:
        states = self._slurm_states()
        return all(states.get(node) == "idle" for node in nodes)

    def _slurm_states(self) -> dict[str, str]:
        with suppress(SandboxError):
            return parse_node_states(self.run(SINFO, timeout=SINFO_SECONDS).stdout)
        return {}

    def _node_statuses(self, daemons: Daemons, ask: bool) -> tuple[NodeStatus, ...]:
        if not self._layout.network.exists():
            return ()
        states = self._slurm_states() if ask else {}
        addresses = Network.load(self._layout, daemons.config).addresses
        return tuple(
            NodeStatus(name, address, daemons.is_alive(name), states.get(name, UNKNOWN))
            for name, address in addresses.items()
        )

    def _running(self, node: str) -> Daemons:
        """Return the daemons with the settings on disk, after a check that there is such a node."""
        check_root()
        config = self._layout.read_config()
        if node not in config.node_names:
            raise SandboxError(f"There is no node {node!r}.", f"The nodes are: {', '.join(config.node_names)}")
        return Daemons(self._layout, config)

    def _enter(self, node: str, argv: Sequence[str | Path]) -> list[str | Path]:
        process = self._running(node).started().get(node)
        inner = children(process.pid) if process is not None and process.is_alive else []
        if not inner:
            raise SandboxError(f"{node} is dead.", f"Type: python -m hpc_tune_slurm.sandbox heal-node {node}")
        return ["nsenter", f"--target={inner[0]}", "--mount", "--uts", "--net", "--pid", "--", *argv]

    def _remove(self) -> None:
        if self._layout.exists():
            Daemons(self._layout, self._layout.read_config()).end_all()
            Network.remove(self._layout)
            self._layout.clear()
