"""What the commands do: functions that return values and print nothing."""

from __future__ import annotations

from hpc_tune.operations.cancel import Cancelled, cancel
from hpc_tune.operations.chosen import default_experiment
from hpc_tune.operations.conclude import Concluded, conclude
from hpc_tune.operations.listing import Listing, list_all
from hpc_tune.operations.local import Ended, Watcher, resume, run
from hpc_tune.operations.logs import Choice, follow, logs
from hpc_tune.operations.status import RunStatus, status, watch
from hpc_tune.operations.tables import Collected, collect

__all__ = [
    "Cancelled",
    "Choice",
    "Collected",
    "Concluded",
    "Ended",
    "Listing",
    "RunStatus",
    "Watcher",
    "cancel",
    "collect",
    "conclude",
    "default_experiment",
    "follow",
    "list_all",
    "logs",
    "resume",
    "run",
    "status",
    "watch",
]
