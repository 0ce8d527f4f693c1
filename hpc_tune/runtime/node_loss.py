"""Nodes that an attempt loses, and trials that die with them through no fault of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError

from hpc_tune.runtime.network import answers

__all__ = ["LostNodes", "forgive_lost_node"]

INTERVAL = 5.0
"""Seconds between two looks at Ray's list of nodes."""

_MOMENT = 1.0
_PAUSE = 0.05

_NODE_DIED = "its node has died"
"""How Ray's global control store explains such a death; the exception holds no code for it."""


def forgive_lost_node(exception: Any, address: str | None, is_stopping: Callable[[], bool]) -> bool:
    """Keep Tune from counting a trial's death as the trial's failure when its node died, or Slurm ends all processes.

    Ray has the notion of an actor that was preempted, for nodes that were drained; one that vanished is no different.
    Whoever talks to a trial may hear of the closed connection before Ray knows of the dead node.

    Args:
        exception: what Ray said.
        address: the IP address of the trial's node; None where that is not known yet: any node.
        is_stopping: whether the search is being ended. Slurm's signal goes to all processes, and the news of a
            trial's end may be here before this process has its own.

    Returns:
        Whether the trial died through no fault of its own.
    """
    if not isinstance(exception, RayActorError):
        return False
    if _NODE_DIED not in str(exception) and not _ends_too(address, is_stopping):
        return False
    exception._preempted = True
    return True


def _ends_too(address: str | None, is_stopping: Callable[[], bool]) -> bool:
    """Tell whether, within a moment, more ends than one trial; a search can afford it for each that dies."""
    deadline = time.monotonic() + _MOMENT
    while not (ends := is_stopping() or _is_silent(address)) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return ends


def _is_silent(address: str | None) -> bool:
    """Tell whether Ray's own process on a node is gone, or that on some node."""
    joined = {(node["NodeManagerAddress"], node["NodeManagerPort"]) for node in ray.nodes()}
    return any(not answers(f"{host}:{port}") for host, port in joined if address in (None, host))


class LostNodes:
    """The addresses of nodes that had joined and are gone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked = float("-inf")
        self._lost: tuple[str, ...] = ()

    def addresses(self) -> tuple[str, ...]:
        """Return them, as of a few seconds ago."""
        if self._clock() - self._looked >= INTERVAL:
            self._looked = self._clock()
            nodes = ray.nodes()
            alive = {node["NodeManagerAddress"] for node in nodes if node["Alive"]}
            self._lost = tuple(sorted({node["NodeManagerAddress"] for node in nodes} - alive))
        return self._lost
