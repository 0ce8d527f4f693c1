"""The state of a trial scheduler on disk: ASHA's rungs, HyperBand's brackets, PBT's population.

Ray saves none of it. A trial scheduler holds the trials themselves, as keys and in lists; here an id stands for each,
and the restored trial takes its place.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from ray import ObjectRef
from ray.cloudpickle import CloudPickler
from ray.tune.experiment import Trial

__all__ = ["load_scheduler", "save_scheduler"]

logger = logging.getLogger(__name__)

_FUTURE = "a future"


class _Pickler(CloudPickler):
    def persistent_id(self, value: Any) -> str | None:
        if isinstance(value, Trial):
            return f"trial {value.trial_id}"
        return _FUTURE if isinstance(value, ObjectRef) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, trials: Iterable[Trial]) -> None:
        super().__init__(file)
        self._trials = {f"trial {trial.trial_id}": trial for trial in trials}

    def persistent_load(self, name: Any) -> Trial | None:
        return None if name == _FUTURE else self._trials[name]


def save_scheduler(scheduler: Any, path: Path) -> None:
    """Write a trial scheduler's state; one of the user's own that cannot be pickled begins anew at a resume."""
    try:
        with path.open("wb") as file:
            _Pickler(file).dump(vars(scheduler))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        path.unlink()
        logger.warning("the state of the trial scheduler cannot be saved: %s", error)


def load_scheduler(scheduler: Any, file: BinaryIO, trials: Iterable[Trial]) -> None:
    """Give a new trial scheduler the state of an earlier one, with ``trials`` in the place of those it knew."""
    vars(scheduler).update(_Unpickler(file, trials).load())
