"""What the commands do: functions that return values and print nothing."""

from __future__ import annotations

from hpc_tune.operations.best import BestTrial, best, export
from hpc_tune.operations.cancel import Cancelled, cancel
from hpc_tune.operations.chosen import default_experiments
from hpc_tune.operations.conclude import Concluded, conclude
from hpc_tune.operations.diagnosis import Diagnosis, diagnose
from hpc_tune.operations.doctor import Preflight, preflight
from hpc_tune.operations.listing import Listing, list_all
from hpc_tune.operations.local import Ended, Search, Watcher, resume, run, searches
from hpc_tune.operations.logs import Choice, follow, logs
from hpc_tune.operations.machine_facts import read_facts
from hpc_tune.operations.planning import Plan, plan, plan_together
from hpc_tune.operations.report import Reported, report
from hpc_tune.operations.sites import (
    ListedSite,
    choose_site,
    detected_site,
    list_profiles,
    show_site,
    write_site,
)
from hpc_tune.operations.status import RunStatus, status, watch
from hpc_tune.operations.submit import Submitted, resubmit, submit, submit_together
from hpc_tune.operations.tables import Collected, collect

__all__ = [
    "BestTrial",
    "Cancelled",
    "Choice",
    "Collected",
    "Concluded",
    "Diagnosis",
    "Ended",
    "ListedSite",
    "Listing",
    "Plan",
    "Preflight",
    "Reported",
    "RunStatus",
    "Search",
    "Submitted",
    "Watcher",
    "best",
    "cancel",
    "choose_site",
    "collect",
    "conclude",
    "default_experiments",
    "detected_site",
    "diagnose",
    "export",
    "follow",
    "list_all",
    "list_profiles",
    "logs",
    "plan",
    "plan_together",
    "preflight",
    "read_facts",
    "report",
    "resubmit",
    "resume",
    "run",
    "searches",
    "show_site",
    "status",
    "submit",
    "submit_together",
    "watch",
    "write_site",
]
