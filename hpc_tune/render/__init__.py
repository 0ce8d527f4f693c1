"""How results look on a terminal, in a pipe and as JSON. The only part that prints."""

from __future__ import annotations

from hpc_tune.render.answer import best, reported
from hpc_tune.render.cancel import cancelled
from hpc_tune.render.doctor import diagnosis, facts, preflight
from hpc_tune.render.followups import followed_up
from hpc_tune.render.listing import listing
from hpc_tune.render.logs import chunks, logs
from hpc_tune.render.results import collected_record, concluded, ended, ended_records, tables
from hpc_tune.render.search import LineWatcher, TableWatcher, watcher
from hpc_tune.render.sites import site, site_list, site_written
from hpc_tune.render.status import status, watched
from hpc_tune.render.submit import plans, scripts, submitted
from hpc_tune.render.text import JSON_SCHEMA, error, number, to_json

__all__ = [
    "JSON_SCHEMA",
    "LineWatcher",
    "TableWatcher",
    "best",
    "cancelled",
    "chunks",
    "collected_record",
    "concluded",
    "diagnosis",
    "ended",
    "ended_records",
    "error",
    "facts",
    "followed_up",
    "listing",
    "logs",
    "number",
    "plans",
    "preflight",
    "reported",
    "scripts",
    "site",
    "site_list",
    "site_written",
    "status",
    "submitted",
    "tables",
    "to_json",
    "watched",
    "watcher",
]
