"""How many trials fit: trial resources against nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpc_tune.errors import Fault
from hpc_tune.experiment.spec import TrialResources

__all__ = ["Node", "fit_trial", "limited_by", "slots", "unfit"]


@dataclass(frozen=True)
class Node:
    """CPUs and GPUs that Ray may hand out on one machine."""

    cpus: float
    gpus: float = 0


def fit_trial(trial: TrialResources, nodes: Sequence[Node]) -> TrialResources:
    """Drop the GPU request where it is optional and no node has a GPU."""
    if trial.gpus and trial.gpu_optional and not any(node.gpus for node in nodes):
        return trial.model_copy(update={"gpus": 0.0})
    return trial


def _slots_by_cpu(trial: TrialResources, node: Node) -> int:
    return int(node.cpus / trial.cpus + 1e-9)


def _slots_by_gpu(trial: TrialResources, node: Node) -> float:
    if not trial.gpus:
        return math.inf
    # Ray places fractions on one GPU each: three trials of 0.4 do not share a GPU, and two GPUs hold four.
    return int(1 / trial.gpus + 1e-9) * int(node.gpus) if trial.gpus < 1 else int(node.gpus // trial.gpus)


def _slots_on(trial: TrialResources, node: Node) -> int:
    return int(min(_slots_by_cpu(trial, node), _slots_by_gpu(trial, node)))


def limited_by(trial: TrialResources, node: Node) -> str:
    """Name what a node runs out of first when trials fill it: ``GPUs`` or ``CPUs``."""
    return "GPUs" if _slots_by_gpu(trial, node) <= _slots_by_cpu(trial, node) else "CPUs"


def slots(trial: TrialResources, nodes: Sequence[Node]) -> int:
    """Return how many trials run at the same time on these nodes."""
    return sum(_slots_on(trial, node) for node in nodes)


def unfit(trial: TrialResources, nodes: Sequence[Node], *, where: str) -> list[Fault]:
    """Return why a trial can never start on any of the nodes: nothing when one of them can hold it."""
    if slots(trial, nodes):
        return []
    cpus, gpus = max(node.cpus for node in nodes), max(node.gpus for node in nodes)
    faults = []
    if trial.cpus > cpus:
        faults.append(
            Fault(
                "trial.cpus",
                f"a trial needs {trial.cpus:g} CPUs, {where} has {cpus:g}",
                f"use --set trial.cpus={cpus:g}",
            )
        )
    if trial.gpus > gpus:
        advice = "use --set trial.gpu_optional=true to run on CPUs" if not gpus else f"use --set trial.gpus={gpus:g}"
        faults.append(Fault("trial.gpus", f"a trial needs {trial.gpus:g} GPUs, {where} has {gpus:g}", advice))
    if not faults:  # one has the CPUs, another the GPUs
        problem = f"a trial needs {trial.cpus:g} CPUs and {trial.gpus:g} GPUs on one node; none of {where} has both"
        faults.append(Fault("trial", problem, "lower trial.cpus or trial.gpus"))
    return faults
