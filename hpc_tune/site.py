"""Sites: what a cluster has, allows and needs, as one TOML file each."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hpc_tune.experiment.duration import Duration

__all__ = ["Environment", "Partition", "QosLimits", "Site"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Environment(_Section):
    """How a job's processes get their software. Set up in this order: setup, modules, conda or venv, variables."""

    setup: list[str] = []
    """Shell lines, run first and as they are written."""
    modules: list[str] = []
    venv: str | None = None
    conda: str | None = None
    """A conda environment's name or path."""
    container: str | None = None
    """An Apptainer image; every process of ours then runs in it."""
    container_options: list[str] = []
    python: str | None = None
    """Left out: the interpreter that ran the command, and in a container ``python3``."""
    variables: dict[str, str] = {}


class Partition(_Section):
    """What a partition offers. What is left out is not checked."""

    nodes: int | None = Field(None, ge=1)
    """How many there are."""
    max_nodes: int | None = Field(None, ge=1)
    """How many one job may have."""
    max_time: Duration | None = None
    default_time: Duration | None = None
    cpus_per_node: int | None = Field(None, ge=1)
    gpus_per_node: int | None = Field(None, ge=0)
    gpu_type: str | None = None
    memory_per_node: int | None = Field(None, ge=1)
    """In MB, as Slurm counts."""
    features: list[str] = []
    qos: list[str] = []
    """Those that jobs here may name; empty: all."""
    preemptible: bool = False


class QosLimits(_Section):
    """Where a QOS differs from its partition."""

    max_time: Duration | None = None
    """Beats the partition's, also upwards."""
    max_nodes: int | None = Field(None, ge=1)
    preemptible: bool = False


class Site(_Section):
    """A cluster's defaults and limits."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    description: str = ""
    cluster_names: list[str] = []
    """Values of Slurm's ClusterName by which the profile is chosen."""
    partition: str | None = None
    """Left out: the cluster's own default."""
    account: str | None = None
    qos: str | None = None
    runs_dir: str | None = None
    """May hold ``~`` and ``$SCRATCH``."""
    temp_dir: str = "/tmp"
    """On the nodes: local, and short, since socket paths end after 107 characters."""
    interface: str | None = None
    """The network interface that Ray uses, such as ``ib0``."""
    next_attempt: Literal["requeue", "successor", "none"] = "requeue"
    """How a job may continue itself: ``scontrol requeue``, ``sbatch`` from within, or not at all."""
    cpus_per_gpu: int | None = Field(None, ge=1)
    sbatch: dict[str, str | int | bool] = {}
    partitions: dict[str, Partition] = {}
    qos_limits: dict[str, QosLimits] = {}
    environment: Environment = Environment()
