"""What one job asks of Slurm, resolved: experiment and command line before site before defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["JobRequest"]


@dataclass(frozen=True)
class JobRequest:
    """Everything that Slurm is asked for. None leaves it to Slurm."""

    nodes: int
    cpus_per_node: int
    min_nodes: int = 1
    """How many nodes must have joined before trials start."""
    gpus_per_node: int = 0
    gpu_type: str | None = None
    """Names the GPUs where the cluster has several types: ``gpu:volta:4``."""
    memory: str | None = None
    """Of each node, as ``sbatch --mem`` takes it."""
    time: float | None = None
    """Seconds."""
    partition: str | None = None
    qos: str | None = None
    account: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    grace: float = 120.0
    """Seconds before the walltime at which trials are told to save."""
    sbatch: Mapping[str, str | int | bool] = field(default_factory=dict)
    """Further directives by long name, with hyphens; true stands for a flag without value."""
