"""What a run asks of Slurm. Options keep Slurm's long names, with underscores."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from hpc_tune.errors import Fault
from hpc_tune.experiment.directives import directive_faults
from hpc_tune.experiment.duration import parse_seconds
from hpc_tune.experiment.faults import Faults
from hpc_tune.experiment.keys import how_to_set

__all__ = ["Allocation", "Directives", "Duration", "Memory", "OneLine"]


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(f"expected printable text on one line, got {text!r}")
    return text


def _memory(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value}M"  # Slurm's own unit
    if not isinstance(value, str) or not re.fullmatch(r"\d+[KMGT]?", value):
        raise ValueError(f'expected a size such as "64G", got {value!r}')
    return value


OneLine = Annotated[str, AfterValidator(_one_line)]
"""Text that cannot end a directive and begin another."""
Memory = Annotated[str, BeforeValidator(_memory)]
Duration = Annotated[float, BeforeValidator(parse_seconds)]
"""Seconds, or a length of time as people write it."""
Directives = dict[str, str | int | bool]


class Allocation(BaseModel):
    """The nodes that one attempt of a run gets. What is left out comes from the site."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: OneLine | None = None
    """Left out: the profile that knows the cluster's name."""
    nodes: int = Field(1, ge=1)
    min_nodes: int = Field(1, ge=1)
    """How many nodes must have joined before trials start; late ones join."""
    start_timeout: Duration = 120
    """Seconds that the cluster gets to form; longer where the environment is slow to load."""
    cpus_per_node: int | None = Field(None, ge=1)
    gpus_per_node: int | None = Field(None, ge=0)
    gpu_type: OneLine | None = None
    """Where a partition has GPUs of several types: Slurm's name of the one to get."""
    memory: Memory | None = None
    """Of each node, as Slurm's ``--mem`` takes it: ``"64G"``."""
    time: Duration | None = None
    """Walltime of one attempt, in seconds."""
    grace: Duration = 120
    """Seconds before the end of the walltime at which trials are told to save."""
    max_attempts: int = Field(20, ge=1)
    """How many attempts may follow one another before a person has to look."""
    partition: OneLine | None = None
    qos: OneLine | None = None
    account: OneLine | None = None
    constraint: OneLine | None = None
    exclude: OneLine | None = None
    """Nodes that the job shall not get."""
    sbatch: Directives = Field(default_factory=dict)
    """Further directives by long name, with hyphens or underscores; ``true`` for a flag, ``false`` leaves one out."""

    @field_validator("sbatch")
    @classmethod
    def _directives(cls, written: Directives) -> Directives:
        if faults := directive_faults(written, "allocation.sbatch"):
            raise Faults(faults)
        return written

    @model_validator(mode="after")
    def _quorum(self) -> Allocation:
        if self.min_nodes > self.nodes:
            raise Faults([Fault(
                "allocation.min_nodes", f"is {self.min_nodes}, but the job has {self.nodes} nodes",
                f"use {how_to_set('min_nodes', self.nodes)}, or {how_to_set('nodes', self.min_nodes)}",
            )])  # fmt: skip
        return self
