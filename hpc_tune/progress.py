"""What a live search looks like: written by its driver, read by whoever watches."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpc_tune.durable import read_json, write_json

__all__ = ["Best", "Curve", "Progress", "improves"]


@dataclass(frozen=True)
class Best:
    """The best result so far and the config that gave it."""

    trial_id: str
    value: float
    iteration: int
    config: dict[str, Any]


@dataclass(frozen=True)
class Progress:
    """A search at one instant."""

    phase: str
    """``starting``, ``running`` or ``ending``."""
    total: int = 0
    """Trials in all, once every one has been suggested."""
    states: dict[str, int] = field(default_factory=dict)
    """Number of trials by Ray Tune's status words."""
    slots: int = 0
    """Trials that can run at the same time."""
    iterations: int = 0
    """Results reported in this attempt."""
    best: Best | None = None
    curve: tuple[float, ...] = ()
    """The best value so far, a point after every ``curve_step`` results of this attempt, from the first that counts."""
    curve_step: int = 1
    eta_seconds: float | None = None
    """From the finished trials of this attempt; None until one has finished."""
    elapsed: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    """When the driver had reached what, in seconds since the epoch: ``driver_up`` (connected to Ray),
    ``first_trial`` (started), ``first_result``."""
    lost: tuple[str, ...] = ()
    """The IP addresses of nodes that had joined and are gone."""
    notes: tuple[str, ...] = ()
    """Things to know that are no errors, such as trials running on CPUs."""

    def write(self, path: Path) -> None:
        """Replace the progress file."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Progress | None:
        """Return what the file says, or None when there is none yet."""
        record = read_json(path)
        if record is None:
            return None
        best = record.pop("best")
        listed = {name: tuple(record.pop(name, ())) for name in ("curve", "lost", "notes")}
        return cls(**(record | listed), best=Best(**best) if best else None)


class Curve:
    """A curve that grows coarser instead of longer."""

    most = 64

    def __init__(self) -> None:
        self.points: list[float] = []
        self.step = 1
        """Values between two points."""
        self._values = 0

    def add(self, value: float) -> None:
        """Let the curve go on."""
        self._values += 1
        if self._values % self.step == 0:
            self.points.append(value)
        if len(self.points) == self.most:
            self.points = self.points[1::2]
            self.step *= 2


def improves(value: float, best: float | None, mode: str) -> bool:
    """Tell whether a metric's value beats the best so far; NaN never does."""
    if math.isnan(value):
        return False
    return best is None or (value > best if mode == "max" else value < best)
