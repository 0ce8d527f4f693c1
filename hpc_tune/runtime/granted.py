"""What Slurm granted to one node agent, read from its environment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hpc_tune.attempt import SlurmJob
from hpc_tune.errors import SlurmError

__all__ = ["Place", "Resources"]

STORE_SHARE = 0.3
"""Of a node's memory for Ray's object store, Ray's own default."""
SHM_SHARE = 0.9
"""Of what is free in ``/dev/shm``: Ray refuses a large store that does not fit there."""
LEAST_STORE = 75 * 2**20
"""Bytes; Ray refuses a smaller store, and puts one of this size into its temporary directory if need be."""


@dataclass(frozen=True)
class Place:
    """Which node of which job an agent is."""

    job: SlurmJob
    step: str
    """The job step's id: ``4711.0``."""
    rank: int
    """0 is the head; Slurm puts it on the node that also runs the batch script."""
    nodes: int
    name: str
    node_list: str
    """All nodes as Slurm abbreviates them: ``iris-[169-172]``."""
    launch_address: str
    """The IP address from which Slurm launched the step: the head's, as Slurm itself reaches it."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the place from the variables that srun sets.

        Raises:
            SlurmError: if this is not a task of a job step.
        """
        try:
            job = SlurmJob(
                job_id=environment["SLURM_JOB_ID"],
                restart_count=int(environment.get("SLURM_RESTART_COUNT", "0")),
                cluster=environment.get("SLURM_CLUSTER_NAME", ""),
                partition=environment.get("SLURM_JOB_PARTITION", ""),
            )
            return cls(
                job=job,
                step=f"{job.job_id}.{environment.get('SLURM_STEP_ID', '0')}",
                rank=int(environment["SLURM_PROCID"]),
                nodes=int(environment["SLURM_NTASKS"]),
                name=environment.get("SLURMD_NODENAME") or os.uname().nodename,
                node_list=environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_JOB_NODELIST", "")),
                launch_address=environment.get("SLURM_LAUNCH_NODE_IPADDR", ""),
            )
        except KeyError as error:
            raise SlurmError(
                f"{error.args[0]} is not set: a node agent runs as a task of a Slurm job step",
                hint="the job script of a run starts it: sbatch job.sbatch",
            ) from None


@dataclass(frozen=True)
class Resources:
    """What Ray may hand out on a node."""

    cpus: int
    gpus: int
    memory: int | None
    """Bytes for trials; None where Slurm does not limit it."""
    object_store: int | None
    """Bytes of shared memory; None leaves it to Ray."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], shm: Path = Path("/dev/shm")) -> Self:
        """Return the allocation's share of this node: Ray itself would count all of the machine."""
        cpus = environment.get("SLURM_CPUS_PER_TASK") or environment["SLURM_CPUS_ON_NODE"]
        granted = _memory(environment)
        store = _object_store(granted, shm)
        return cls(int(cpus), _gpus(environment), None if granted is None else granted - (store or 0), store)


def _gpus(environment: Mapping[str, str]) -> int:
    """Count the visible list first: it is what Ray hands out, and SLURM_GPUS_ON_NODE is missing at some sites."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1", "NoDevFiles")])
    return int(environment.get("SLURM_GPUS_ON_NODE") or 0)


def _memory(environment: Mapping[str, str]) -> int | None:
    """Return the bytes that Slurm granted on this node; its variables count megabytes, and 0 means all of it."""
    if megabytes := int(environment.get("SLURM_MEM_PER_NODE") or 0):
        return megabytes * 2**20
    if per_cpu := int(environment.get("SLURM_MEM_PER_CPU") or 0):
        return per_cpu * int(environment["SLURM_CPUS_ON_NODE"]) * 2**20
    return None


def _object_store(granted: int | None, shm: Path) -> int | None:
    if granted is None or not shm.is_dir():
        return None
    return max(LEAST_STORE, int(min(STORE_SHARE * granted, SHM_SHARE * shutil.disk_usage(shm).free)))
