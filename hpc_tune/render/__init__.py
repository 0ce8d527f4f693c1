"""How results look on a terminal, in a pipe and as JSON. The only part that prints."""

from __future__ import annotations

from hpc_tune.render.results import collected_record, ended, tables
from hpc_tune.render.search import LineWatcher, TableWatcher, watcher
from hpc_tune.render.text import JSON_SCHEMA, error, number, to_json

__all__ = [
    "JSON_SCHEMA",
    "LineWatcher",
    "TableWatcher",
    "collected_record",
    "ended",
    "error",
    "number",
    "tables",
    "to_json",
    "watcher",
]
