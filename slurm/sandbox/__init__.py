"""A throw-away Slurm of several nodes on one machine; `python -m hpc_tune_slurm.sandbox --help`."""

from .config import SandboxConfig
from .errors import SandboxConfigError, SandboxError, SandboxUnavailableError
from .sandbox import Sandbox
from .status import NodeStatus, SandboxState, SandboxStatus

__all__ = [
    "NodeStatus",
    "Sandbox",
    "SandboxConfig",
    "SandboxConfigError",
    "SandboxError",
    "SandboxState",
    "SandboxStatus",
    "SandboxUnavailableError",
]
