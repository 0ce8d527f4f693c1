"""What a sandbox is like at the moment."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["NodeStatus", "SandboxState", "SandboxStatus", "parse_node_states"]

UNKNOWN = "unknown"


class SandboxState(enum.Enum):
    """Whether a sandbox can be used."""

    DOWN = "down"
    """There is nothing."""
    UP = "up"
    """The controller's daemons run; single nodes may have been killed."""
    BROKEN = "broken"
    """A start failed half-way, a daemon died, or the machine was restarted: `up` and `down` clean that."""


@dataclass(frozen=True)
class NodeStatus:
    """One node: whether its slurmd runs, and what slurmctld thinks of it, which lags behind.

    Attributes:
        slurm_state: As in sinfo, such as "idle", "mixed", "down*"; "unknown" if slurmctld does not say.
    """

    name: str
    address: str
    is_alive: bool
    slurm_state: str


@dataclass(frozen=True)
class SandboxStatus:
    """A sandbox: its state, daemons (name to whether it runs) and nodes.

    Attributes:
        slurm_conf: For SLURM_CONF; empty if the sandbox is down.
        subnet: In CIDR notation; empty if the sandbox is down or has none yet.
    """

    state: SandboxState
    state_dir: str
    slurm_conf: str = ""
    subnet: str = ""
    daemons: Mapping[str, bool] | None = None
    nodes: tuple[NodeStatus, ...] = ()

    @property
    def idle_nodes(self) -> int:
        """How many nodes wait for jobs."""
        return sum(node.slurm_state == "idle" for node in self.nodes)


def parse_node_states(text: str) -> dict[str, str]:
    """Read `sinfo --noheader --Node --format='%N %T'`, which names a node once for each partition."""
    return {words[0]: words[1] for line in text.splitlines() if len(words := line.split()) == 2}
