"""What one job asks of Slurm, resolved: experiment and command line before site before defaults."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpc_tune.errors import Fault
from hpc_tune.experiment.allocation import Allocation
from hpc_tune.experiment.capacity import Node, fit_trial, unfit
from hpc_tune.experiment.directives import long_name
from hpc_tune.experiment.duration import format_clock
from hpc_tune.experiment.keys import how_to_set
from hpc_tune.experiment.nearest import did_you_mean
from hpc_tune.experiment.spec import TrialResources
from hpc_tune.site import Partition, QosLimits, Site

__all__ = ["JobRequest", "check_request", "job_conflicts", "request_notes", "resolve_request", "share_job"]


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
    start_timeout: float = 120.0
    """Seconds that the cluster gets to form."""
    sbatch: Mapping[str, str | int | bool] = field(default_factory=dict)
    """Further directives by long name, with hyphens; true stands for a flag without value."""


def resolve_request(
    allocation: Allocation, site: Site, trial: TrialResources, environ: Mapping[str, str] | None = None
) -> JobRequest:
    """Fill in what an experiment leaves open: from sbatch's variables, from the site, from what trials need.

    Users set SBATCH_ACCOUNT, SBATCH_PARTITION or SBATCH_QOS as their own defaults: they come before the site's.
    """
    own = os.environ if environ is None else environ

    def default(key: str) -> str | None:
        return getattr(allocation, key) or own.get(f"SBATCH_{key.upper()}") or getattr(site, key)

    partition = default("partition")
    offer = site.partitions.get(partition or "", Partition())
    gpus = _gpus(allocation, offer, trial)
    directives = {long_name(key): value for key, value in {**site.sbatch, **allocation.sbatch}.items()}
    return JobRequest(
        nodes=allocation.nodes,
        min_nodes=allocation.min_nodes,
        cpus_per_node=allocation.cpus_per_node or _cpus(gpus, offer, site, trial),
        gpus_per_node=gpus,
        gpu_type=allocation.gpu_type if gpus else None,
        memory=allocation.memory,
        time=allocation.time or offer.default_time,
        partition=partition,
        qos=default("qos"),
        account=default("account"),
        constraint=allocation.constraint,
        exclude=allocation.exclude,
        grace=allocation.grace,
        start_timeout=allocation.start_timeout,
        sbatch={key: value for key, value in directives.items() if value is not False},
    )


def _gpus(allocation: Allocation, offer: Partition, trial: TrialResources) -> int:
    """Take all GPUs of a node when trials need some; without a partition's word, as many as one trial needs."""
    if allocation.gpus_per_node is not None:
        return allocation.gpus_per_node
    if not trial.gpus or (trial.gpu_optional and offer.gpus_per_node == 0):
        return 0
    return offer.gpus_per_node or math.ceil(trial.gpus)


def _cpus(gpus: int, offer: Partition, site: Site, trial: TrialResources) -> int:
    """Take the CPUs that belong to the GPUs, or all; of an unknown node, as many as its trials need."""
    whole = offer.cpus_per_node
    if gpus and site.cpus_per_gpu:
        share = site.cpus_per_gpu * gpus
        return min(share, whole) if whole else share
    if whole:
        per_gpu = whole / offer.gpus_per_node if offer.gpus_per_node else None
        return whole if not gpus or per_gpu is None else min(whole, max(1, int(per_gpu * gpus)))
    trials = 1
    if gpus and trial.gpus:
        trials = int(1 / trial.gpus + 1e-9) * gpus if trial.gpus < 1 else int(gpus // trial.gpus)
    return math.ceil(trial.cpus * max(trials, 1))


def share_job(requests: Sequence[JobRequest]) -> list[JobRequest]:
    """Return what experiments ask for that share one job: of nodes, CPUs and GPUs the most that one of them needs."""
    sizes = ("nodes", "cpus_per_node", "gpus_per_node")
    most: dict[str, Any] = {size: max(getattr(each, size) for each in requests) for size in sizes}
    most["gpu_type"] = next((each.gpu_type for each in requests if each.gpu_type), None)
    return [replace(each, **most) for each in requests]


def job_conflicts(request: JobRequest, first: JobRequest, source: Path) -> list[Fault]:
    """Return the keys of one job that two experiments would have different.

    Args:
        request: what one of them asks for.
        first: what the other one asks for.
        source: the other one's file.
    """
    pairs = [(key, getattr(request, key), getattr(first, key)) for key in _OF_A_JOB]
    if request.gpu_type and first.gpu_type:
        pairs.append(("gpu_type", request.gpu_type, first.gpu_type))
    problem = "is {}, but {} in {}; one job runs both"
    return [
        _fault(key, problem.format(_written(key, own), _written(key, other), source), f"use {how_to_set(key)}")
        for key, own, other in pairs
        if own != other
    ]


_OF_A_JOB = ("memory", "time", "partition", "qos", "account", "constraint", "exclude", "grace", "sbatch")
"""Keys that a job has once, however many experiments it runs."""


def _written(key: str, value: Any) -> str:
    if value is None:
        return "left to Slurm"
    return format_clock(value) if key == "time" else str(value)


def check_request(request: JobRequest, site: Site, trial: TrialResources) -> list[Fault]:
    """Return all that the site or the trials make impossible, each with the nearest request that is not."""
    offer = site.partitions.get(request.partition or "", Partition())
    qos = site.qos_limits.get(request.qos or "", QosLimits())
    where = f"partition {request.partition}"
    faults = [
        *_node_faults(request, offer, qos, where),
        *_time_faults(request, offer, qos, where),
        *_size_faults(request, offer, where),
        *_gpu_faults(request, offer, site, where),
    ]
    if offer.qos and request.qos is not None and request.qos not in offer.qos:
        faults.append(_fault("qos", f"{where} does not take QOS {request.qos!r}", did_you_mean(request.qos, offer.qos)))
    node = Node(request.cpus_per_node, request.gpus_per_node)
    return faults or unfit(fit_trial(trial, [node]), [node], where="a node of this job")


def _fault(key: str, problem: str, advice: str | None) -> Fault:
    return Fault(f"allocation.{key}", problem, advice)


def _node_faults(request: JobRequest, offer: Partition, qos: QosLimits, where: str) -> Iterator[Fault]:
    limits = [
        (offer.max_nodes, f"at most {offer.max_nodes} nodes per job in {where}"),
        (qos.max_nodes, f"at most {qos.max_nodes} nodes per job with QOS {request.qos}"),
        (offer.nodes, f"{where} has {offer.nodes} nodes"),
    ]
    known = [(most, problem) for most, problem in limits if most is not None]
    most, problem = min(known, default=(request.nodes, ""))
    if request.nodes > most:
        yield _fault("nodes", problem, f"use {how_to_set('nodes', most)}")


def _time_faults(request: JobRequest, offer: Partition, qos: QosLimits, where: str) -> Iterator[Fault]:
    most = qos.max_time or offer.max_time
    if request.time is not None and most is not None and request.time > most:
        owner = f"with QOS {request.qos}" if qos.max_time else f"in {where}"
        yield _fault("time", f"at most {format_clock(most)} {owner}", f"use {how_to_set('time', format_clock(most))}")
    if request.time is not None and request.grace >= request.time:
        problem = f"is {request.grace:.0f} s, the whole walltime is {request.time:.0f} s"
        yield _fault("grace", problem, f"use {how_to_set('grace', max(1, int(request.time // 4)))}, or more time")


def _size_faults(request: JobRequest, offer: Partition, where: str) -> Iterator[Fault]:
    if offer.cpus_per_node and request.cpus_per_node > offer.cpus_per_node:
        problem = f"a node of {where} has {offer.cpus_per_node} CPUs, asked for are {request.cpus_per_node}"
        yield _fault("cpus_per_node", problem, f"use {how_to_set('cpus_per_node', offer.cpus_per_node)}")
    if offer.memory_per_node and request.memory and _megabytes(request.memory) > offer.memory_per_node:
        problem = f"a node of {where} has {offer.memory_per_node} MB, asked for are {request.memory}"
        yield _fault("memory", problem, f"use {how_to_set('memory', f'{offer.memory_per_node}M')}")


def _gpu_faults(request: JobRequest, offer: Partition, site: Site, where: str) -> Iterator[Fault]:
    have = offer.gpus_per_node
    if have is not None and request.gpus_per_node > have:
        others = [name for name, other in site.partitions.items() if other.gpus_per_node]
        advice = how_to_set("gpus_per_node", have)
        if not have:
            advice = how_to_set("partition", others[0]) if others else "--set trial.gpu_optional=true to run on CPUs"
        yield _fault("gpus_per_node", f"a node of {where} has {have or 'no'} GPUs", f"use {advice}")
    if request.gpu_type and offer.gpu_types and request.gpu_type not in offer.gpu_types:
        advice = did_you_mean(request.gpu_type, offer.gpu_types)
        yield _fault("gpu_type", f"{where} has no GPUs of type {request.gpu_type!r}", advice)


def _megabytes(memory: str) -> float:
    units = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}
    return int(memory[:-1]) * units[memory[-1]] if memory[-1] in units else int(memory)


def request_notes(request: JobRequest, site: Site, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return what a user should know of a request that is legal."""
    notes = []
    offer = site.partitions.get(request.partition or "")
    if offer is None and request.partition is not None and site.partitions:
        notes.append(f"site {site.name} does not know partition {request.partition}: its limits are not checked")
    qos = site.qos_limits.get(request.qos or "", QosLimits())
    if qos.preemptible or (offer is not None and offer.preemptible):
        notes.append("the job may be preempted; it then waits for nodes again and continues")
    if offer is not None and offer.gpus_per_node and not request.gpus_per_node:
        notes.append(f"trials ask for no GPUs, but the nodes of partition {request.partition} have some")
    share = (site.cpus_per_gpu or 0) * request.gpus_per_node
    if share and request.cpus_per_node > share:
        rule = f"{site.cpus_per_gpu} CPUs come with a GPU at {site.name}"
        notes.append(f"{rule}; {request.cpus_per_node} CPUs for {request.gpus_per_node} GPUs leave GPUs without CPUs")
    if unset := site.unset_variables(environ):
        notes.append(f"{', '.join(unset)} is not set here: runs are kept in ./runs, not in {site.runs_dir}")
    return notes
