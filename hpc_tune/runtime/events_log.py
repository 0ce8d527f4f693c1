"""What trials report, for TensorBoard: an event file in each trial's folder, with Ray's own tags."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Mapping
from numbers import Number
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.utils import flatten_dict

from hpc_tune.runtime.tfevents import config_record, head_record, scalars_record
from hpc_tune.runtime.trial_files import TrialFiles

__all__ = ["EventsLog"]

_LEFT_OUT = ("config", "pid", "timestamp", "time_total_s", "training_iteration")
"""Keys of a result that Ray's own logger leaves out: each curve has time and step already."""


class EventsLog(Callback):
    """Writes each trial's numbers as they come; a new attempt adds a file of its own."""

    def __init__(self, storage: Path) -> None:
        self._storage = storage
        self._name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        self._files = TrialFiles(lambda path: path.open("ab"))
        self._begun: set[str] = set()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Add the numbers of a result, at the first one also the config."""
        now = time.time()
        begin = b""
        if trial.trial_id not in self._begun:
            self._begun.add(trial.trial_id)
            begin = head_record(now) + config_record(now, _settings(trial.config))
        kept = {key: value for key, value in result.items() if key not in _LEFT_OUT}
        step = result.get("timesteps_total") or result["training_iteration"]
        self._files.append(self._path(trial), begin + scalars_record(now, int(step), _numbers(kept)))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Close the trial's file."""
        self._files.close(self._path(trial))

    on_trial_error = on_trial_complete

    def _path(self, trial: Trial) -> Path:
        return self._storage / str(trial.trial_id) / self._name


def _numbers(result: Mapping[str, Any]) -> dict[str, float]:
    flat = flatten_dict(dict(result), delimiter="/")
    numbers = ((f"ray/tune/{key}", float(value)) for key, value in flat.items() if _is_real(value))
    return {key: value for key, value in numbers if not math.isnan(value)}


def _settings(config: Mapping[str, Any]) -> dict[str, bool | float | str]:
    flat = flatten_dict(dict(config), delimiter="/")
    return {
        key: value if isinstance(value, bool | str) else float(value) if _is_real(value) else str(value)
        for key, value in flat.items()
    }


def _is_real(value: Any) -> bool:
    return isinstance(value, Number) and not isinstance(value, complex)
