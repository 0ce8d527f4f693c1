"""What a sandbox looks like: its settings, checked, and their copy on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .errors import SandboxConfigError

__all__ = ["DEFAULT_STATE_DIR", "MAX_NODES", "SandboxConfig"]

DEFAULT_STATE_DIR = Path("/var/lib/hpc-tune-sandbox")
MAX_NODES = 200
"""All addresses lie in one /24; the nodes' begin at .11."""
FIRST_NODE_NUMBER = 169
"""GPU nodes of iris are iris-169 to iris-196."""
PRIVATE_DIRS = (Path("/tmp"), Path("/dev/shm"))
"""Every node has its own, so nothing that all must see may lie there."""
MAX_SOCKET_PATH = 107
"""Bytes that sockaddr_un.sun_path holds, without its final NUL."""
LONGEST_SOCKET = "/spool/{node}/{node}_999999999.4294967294"
"""Where slurmstepd listens; the longest socket path below the state directory."""


@dataclass(frozen=True, kw_only=True)
class SandboxConfig:
    """Settings of one sandbox; times are in seconds, sizes in MB, as Slurm counts them.

    Attributes:
        state_dir: Everything the sandbox owns; must not exist, be empty, or be a sandbox's. Two sandboxes need two.
        cluster_name: Also the prefix of the node names.
        cpus: Per node, on paper: more than the machine has is fine.
        gpus: Stand-ins per node: Slurm counts them, no program can use them.
        tmp: Upper bound of each node's private /tmp (memory is taken as files are written).
        shm: Upper bound of each node's private /dev/shm. Ray leaves it for /tmp, with a warning, if it is below 30 %
            of the machine's memory.
        grace_time: What a preempted job of partition `gpu` gets between SIGTERM and its end, at least: slurmctld
            looks only every 30 s.
        slurmd_timeout: After this time a silent node counts as down.
        requeue_delay: How long a requeued job waits before it may start again. Slurm's own default is 120. It is the
            life time of job credentials too, so values below 10 make slow machines fail.
        min_job_age: How long squeue still knows a finished job.
        users: Existing users of this machine who get an account in the accounting database.
        shared_dirs: Directories below /tmp that the nodes see although their /tmp is private. This Python, its
            sources and the current directory are always among them.
        extra_conf: Lines for the end of slurm.conf, such as "PreemptParameters=send_user_signal".
        start_timeout: How long `up` waits for all nodes, and `heal_node` for one.
    """

    state_dir: Path = DEFAULT_STATE_DIR
    cluster_name: str = "iris"
    nodes: int = 4
    cpus: int = 28
    gpus: int = 4
    memory: int = 64000
    tmp: int = 2048
    shm: int = 8192
    accounting: bool = False
    grace_time: int = 5
    kill_wait: int = 10
    slurmd_timeout: int = 15
    requeue_delay: int = 120
    min_job_age: int = 300
    users: tuple[str, ...] = ("nobody", "daemon")
    shared_dirs: tuple[Path, ...] = ()
    extra_conf: tuple[str, ...] = ()
    start_timeout: float = 60.0

    def __post_init__(self) -> None:
        """Reject settings that cannot work, all of them at once.

        Raises:
            SandboxConfigError: With every fault.
        """
        faults = list(self._faults())
        if faults:
            raise SandboxConfigError("This sandbox cannot be built: " + "; ".join(faults) + ".")

    @property
    def node_names(self) -> tuple[str, ...]:
        """The node names in the order of their addresses."""
        return tuple(f"{self.cluster_name}-{FIRST_NODE_NUMBER + index}" for index in range(self.nodes))

    @property
    def login_name(self) -> str:
        """The nodes' name for this machine, from which users submit."""
        return f"{self.cluster_name}-login"

    @property
    def controller_name(self) -> str:
        """The machine on which slurmctld runs."""
        return f"{self.cluster_name}-controller"

    def _faults(self) -> Iterator[str]:
        if not 1 <= self.nodes <= MAX_NODES:
            yield f"nodes is {self.nodes}, possible are 1 to {MAX_NODES}"
        for key in ("cpus", "memory", "tmp", "shm", "kill_wait", "slurmd_timeout", "requeue_delay", "min_job_age"):
            if getattr(self, key) < 1:
                yield f"{key} is {getattr(self, key)}, at least 1 is needed"
        for key in ("gpus", "grace_time"):
            if getattr(self, key) < 0:
                yield f"{key} is {getattr(self, key)}, at least 0 is needed"
        if not re.fullmatch(r"[a-z][a-z0-9]{0,19}", self.cluster_name):
            yield f"cluster_name is {self.cluster_name!r}; lower-case letters and digits, at most 20, are possible"
        yield from self._state_dir_faults()

    def _state_dir_faults(self) -> Iterator[str]:
        path = self.state_dir
        if not path.is_absolute() or path != path.resolve():
            yield f"the state directory {path} must be an absolute path without symbolic links"
        elif any(path.is_relative_to(private) for private in PRIVATE_DIRS):
            yield (
                f"the state directory {path} must not lie below /tmp or /dev/shm, because every node has a private "
                f"one and would not see it; leave it out ({DEFAULT_STATE_DIR}) or choose one below /var/lib"
            )
        if not re.fullmatch(r"[A-Za-z0-9_./-]+", str(path)):
            yield f"the state directory {path} may have letters, digits and _ . - only: slurm.conf cannot quote"
        longest = len(str(path)) + len(LONGEST_SOCKET.format(node=f"{self.cluster_name}-{FIRST_NODE_NUMBER}"))
        if longest > MAX_SOCKET_PATH:
            yield f"the state directory {path} is {longest - MAX_SOCKET_PATH} characters too long for socket paths"

    def to_json(self) -> str:
        """Return what `from_json` reads."""
        return json.dumps(asdict(self), default=str, indent=1)

    @classmethod
    def from_json(cls, text: str) -> SandboxConfig:
        """Rebuild the settings; keys that this version does not know are ignored."""
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {key: value for key, value in json.loads(text).items() if key in known}
        values["state_dir"] = Path(values["state_dir"])
        values["shared_dirs"] = tuple(Path(path) for path in values["shared_dirs"])
        values["users"], values["extra_conf"] = tuple(values["users"]), tuple(values["extra_conf"])
        return cls(**values)
