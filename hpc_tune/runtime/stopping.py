"""Stopping a search so that little is lost: its running trials first come to their next report."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

__all__ = ["GracefulStop", "end_tune"]

_RUNNING = "RUNNING"  # Trial.RUNNING; the driver loads this before it has loaded Ray
_HERE = 0.5
"""Seconds after which every trial of this machine has seen the stop file before its report."""
_EVERYWHERE = 2.5
"""Seconds after which the trials of all nodes have: their agents look for the stop marker every second."""


class GracefulStop:
    """A stop that waits until each trial that runs has reported once more, with a checkpoint if it asks for one.

    A trial that is told to save (:func:`hpc_tune.should_checkpoint`) does so with its next report; one that is not
    keeps its own rhythm. Either way waiting for more than that report would gain nothing. A report without a
    checkpoint right after the request counts for nothing: the trial had not been told yet.

    Args:
        seconds: how long to wait at the most.
        stop_file: created to tell the trials of this machine; None where the node agents do it.
    """

    def __init__(
        self, seconds: float, stop_file: Path | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._seconds = seconds
        self._stop_file = stop_file
        self._spread = _EVERYWHERE if stop_file is None else _HERE
        self._clock = clock
        self._requested: float | None = None
        self._awaited: list[Trial] | None = None
        self._hurried = False

    @property
    def requested(self) -> bool:
        """Whether the search is to stop."""
        return self._requested is not None

    def request(self) -> None:
        """Ask for the stop; asked again, it waits no longer."""
        if self._requested is not None:
            self._hurried = True
            return
        self._requested = self._clock()
        if self._stop_file is not None:
            self._stop_file.touch()

    def is_due(self, trials: Iterable[Trial]) -> bool:
        """Tell whether nothing is left to wait for."""
        if self._requested is None:
            return False
        if self._hurried or self._clock() - self._requested >= self._seconds:
            return True
        if self._awaited is None:  # trials that start from now on are not waited for
            self._awaited = [trial for trial in trials if trial.status == _RUNNING]
        self._awaited = [trial for trial in self._awaited if trial.status == _RUNNING and not self._has_saved(trial)]
        return not self._awaited

    def _has_saved(self, trial: Trial) -> bool:
        """Tell whether a trial has reported with a checkpoint since the request, or as one that writes none."""
        since = (trial.run_metadata.last_result_time or 0.0) - (self._requested or 0.0)
        has_checkpoint = trial.run_metadata.last_result.get("checkpoint_dir_name") is not None
        return since >= (0.0 if has_checkpoint else self._spread)


def end_tune() -> None:
    """Have ``tune.run`` save the state and return: it listens to this signal."""
    signal.raise_signal(signal.SIGUSR1)
