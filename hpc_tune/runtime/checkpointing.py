"""When a trial should write a checkpoint: the one question that a trainable may ask us."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

__all__ = ["STOP_FILE", "should_checkpoint"]

STOP_FILE = "HPC_TUNE_STOP_FILE"
"""The environment variable that names a file of the trial's node; once the file is there, the allocation ends."""

_asked: dict[str, int] = {}
"""In which iteration each trial of this process is; a process serves several."""


def should_checkpoint(*, every: int | None = None) -> bool:
    """Tell whether to report this iteration with a checkpoint; a trainable asks once per iteration.

    True in every ``every``-th iteration, and in each one from the moment when the search is about to be stopped: the
    walltime is near, or its owner interrupts it. An interrupted trial then repeats one iteration at most. Asking
    costs a look at the node's own disk. Outside of a search it is true in every ``every``-th call.

    Args:
        every: the rhythm in which checkpoints are written anyway; None: none but the last.

    Raises:
        ValueError: if ``every`` is below 1.
    """
    if every is not None and every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    trial = _trial_id()
    _asked[trial] = _asked.get(trial, 0) + 1
    return (every is not None and _asked[trial] % every == 0) or is_stopping()


def go_on_from(trial: str, iteration: int) -> None:
    """Note in which iteration a trial goes on: an interruption does not change its rhythm."""
    _asked[trial] = iteration


def is_stopping() -> bool:
    """Tell whether the search is about to be stopped on this node."""
    stop_file = os.environ.get(STOP_FILE)
    return stop_file is not None and Path(stop_file).exists()


def _trial_id() -> str:
    if "ray" not in sys.modules:
        return ""
    from ray import tune

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # outside of a search there is no trial, which is fine here
        return str(tune.get_context().get_trial_id() or "")
