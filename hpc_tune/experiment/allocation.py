"""What a run asks of Slurm. Options keep Slurm's long names, with underscores."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from hpc_tune.experiment.duration import Duration

__all__ = ["Allocation"]


class Allocation(BaseModel):
    """The nodes that one attempt of a run gets. What is left out comes from the site."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: int = Field(1, ge=1)
    gpus_per_node: int | None = Field(None, ge=0)
    time: Duration | None = None
    """Walltime of one attempt, in seconds."""
    partition: str | None = None
    qos: str | None = None
    account: str | None = None
    constraint: str | None = None
