"""What the commands do: functions that return values and print nothing."""

from __future__ import annotations

from hpc_tune.operations.chosen import default_experiment
from hpc_tune.operations.local import Ended, Watcher, resume, run
from hpc_tune.operations.tables import Collected, collect

__all__ = ["Collected", "Ended", "Watcher", "collect", "default_experiment", "resume", "run"]
