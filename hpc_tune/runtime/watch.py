"""The driver's account of a live search."""

from __future__ import annotations

import json
import math
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.utils import flatten_dict
from ray.tune.utils.util import SafeFallbackEncoder

from hpc_tune.progress import Best, Curve, Progress, improves
from hpc_tune.runtime.node_loss import LostNodes

__all__ = ["ProgressWriter"]

INTERVAL = 0.5
"""Seconds between two versions of the progress file."""

_OVER = (Trial.TERMINATED, Trial.ERROR)


class ProgressWriter(Callback):
    """Keeps ``progress.json`` up to date while Tune works."""

    def __init__(
        self,
        path: Path,
        *,
        metric: str,
        mode: str,
        total: int,
        slots: int,
        phases: dict[str, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._metric = metric
        self._mode = mode
        self._total = total
        self._slots = slots
        self._phases = phases
        self._lost = LostNodes()
        self._clock = clock
        self._begin = clock()
        self._written = float("-inf")
        self._iterations = 0
        self._finished = 0
        self._best: Best | None = None
        self._curve = Curve()
        self._no_number: str | None = None
        self._begun_with: tuple[str, ...] = ()

    def begin_with(self, notes: Sequence[str]) -> None:
        """Take up what there is to know of the beginning."""
        self._begun_with = tuple(notes)

    @property
    def elapsed(self) -> float:
        """Seconds since the search began."""
        return self._clock() - self._begin

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note when the first trial began."""
        self._phases.setdefault("first_trial", time.time())

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Count, and remember the best."""
        self._phases.setdefault("first_result", time.time())
        self._iterations += 1
        value = flatten_dict(result).get(self._metric)
        if not isinstance(value, Real) or math.isnan(value):
            self._no_number = textwrap.shorten(repr(value), 40)
        elif improves(float(value), self._best.value if self._best else None, self._mode):
            config = json.loads(json.dumps(trial.config, cls=SafeFallbackEncoder))
            self._best = Best(trial.trial_id, float(value), int(result["training_iteration"]), config)
        if self._best is not None:
            self._curve.add(self._best.value)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Count finished trials, for the time that is left."""
        self._finished += 1

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Write now and then."""
        if self._clock() - self._written >= INTERVAL:
            self.write("running", trials)

    def write(self, phase: str, trials: list[Trial]) -> None:
        """Replace the progress file."""
        states = Counter(trial.status for trial in trials)
        elapsed = self.elapsed
        left = self._total - sum(states[state] for state in _OVER)
        progress = Progress(
            phase=phase,
            total=self._total,
            states=dict(states),
            slots=self._slots,
            iterations=self._iterations,
            best=self._best,
            curve=tuple(self._curve.points),
            curve_step=self._curve.step,
            eta_seconds=elapsed * left / self._finished if self._finished else None,
            elapsed=elapsed,
            phases=self._phases,
            lost=self._lost.addresses(),
            notes=self.notes,
        )
        progress.write(self._path)
        self._written = self._clock()

    @property
    def notes(self) -> tuple[str, ...]:
        """What its owner should know of the attempt, which is no error."""
        if self._best is not None or self._no_number is None:
            return self._begun_with
        said = f"no result of this attempt has a number for {self._metric}: one has {self._no_number}"
        return (*self._begun_with, said)
