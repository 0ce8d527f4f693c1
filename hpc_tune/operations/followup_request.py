"""What a follow-up's job asks of Slurm, as submitit takes it."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from hpc_tune.errors import ExperimentError, Fault
from hpc_tune.experiment.allocation import Allocation
from hpc_tune.experiment.faults import describe, faults_of, known_keys
from hpc_tune.experiment.load import parse_override
from hpc_tune.experiment.spec import TrialResources
from hpc_tune.jobscript import environment_script, gres
from hpc_tune.operations.sites import choose_site
from hpc_tune.request import JobRequest, check_request, resolve_request
from hpc_tune.run import RunDir
from hpc_tune.site import Partition, Site
from hpc_tune.slurm.client import Slurm

__all__ = ["submitit_parameters"]

DEFAULT_TIME = 3600.0
"""Seconds, where nobody says how long a job may take."""


def submitit_parameters(
    kind: str, run: RunDir, needs: TrialResources, overrides: Sequence[str], slurm: Slurm
) -> dict[str, Any]:
    """Return what submitit is told of a job: one node where the run's own jobs go, unless told otherwise.

    Args:
        kind: what the job does.
        run: the run that it is about.
        needs: what its process needs.
        overrides: ``KEY=VALUE`` texts for ``[allocation]``.
        slurm: whom to ask which cluster this is.

    Raises:
        ExperimentError: if the site does not have what is asked for.
    """
    where = f"the job of hpc-tune {kind}"
    try:
        allocation = _allocation(run, needs, overrides)
    except ValidationError as error:
        raise ExperimentError(where, faults_of(error, _fault)) from None
    site, _ = choose_site(allocation.site, slurm)
    request = resolve_request(allocation, site, needs)
    offer = site.partitions.get(request.partition or "", Partition())
    if needs.gpu_optional and offer.gpus_per_node == 0:
        request = replace(request, gpus_per_node=0)
    if allocation.time is None:
        request = replace(request, time=min(DEFAULT_TIME, offer.max_time or DEFAULT_TIME))
    if faults := check_request(request, site, needs):
        raise ExperimentError(where, faults)
    return _parameters(request, site, f"{run.name}-{kind}")


def _allocation(run: RunDir, needs: TrialResources, overrides: Sequence[str]) -> Allocation:
    own = run.record()["spec"]["allocation"]
    table: dict[str, Any] = {key: own[key] for key in ("site", "partition", "qos", "account", "constraint", "exclude")}
    table |= {"sbatch": dict(own["sbatch"]), "grace": 1}
    table |= {"cpus_per_node": math.ceil(needs.cpus), "gpus_per_node": math.ceil(needs.gpus)}
    if needs.gpus:
        table["gpu_type"] = own["gpu_type"]
    for text in overrides:
        (_, *path), value = parse_override(text)
        inner = table
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = value
    return Allocation.model_validate(table)


def _fault(detail: Mapping[str, Any]) -> Fault:
    path = [str(part) for part in detail["loc"]]
    return describe(detail, ".".join(["allocation", *path]), known_keys(Allocation, path))


def _parameters(request: JobRequest, site: Site, name: str) -> dict[str, Any]:
    """Return what submitit is told; without srun, whose variables would be in the way of a job that sends another."""
    return {
        "job_name": name,
        "partition": request.partition,
        "qos": request.qos,
        "account": request.account,
        "constraint": request.constraint,
        "exclude": request.exclude,
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": request.cpus_per_node,
        "gres": gres(request),
        "mem": request.memory,
        "time": math.ceil((request.time or DEFAULT_TIME) / 60),
        "setup": environment_script(site.environment, python=sys.executable).splitlines(),
        "additional_parameters": dict(request.sbatch),
        "use_srun": False,
        "stderr_to_stdout": True,
        "wckey": None,
    }
