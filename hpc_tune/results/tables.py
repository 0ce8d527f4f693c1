"""The tables of a run: the trials, their history, and the run in one row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hpc_tune.results.cells import shaped
from hpc_tune.results.columns import escaped, merge, typed
from hpc_tune.results.digest import Reported
from hpc_tune.results.resultlog import TIMES, ResultLog
from hpc_tune.results.trials import ReadReport, Trial, read_trials

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "Reading",
    "SearchInfo",
    "Tables",
    "best_trial",
    "frame",
    "metric_columns",
    "read",
    "read_tables",
    "summarize",
]

_STATES = ("TERMINATED", "ERROR", "INTERRUPTED", "RUNNING", "PAUSED", "PENDING")
_GOING_ON = ("RUNNING", "PAUSED", "PENDING")  # not INTERRUPTED: that has ended, at its last report
_AFTER_METRICS = (
    "best_value",
    "best_iteration",
    "iterations",
    "seconds",
    "node",
    "started",
    "ended",
    "checkpoint",
    "error",
)
_FIXED = frozenset({"trial_id", "status", "training_iteration", "notes", *_AFTER_METRICS, *TIMES})


@dataclass(frozen=True)
class SearchInfo:
    """What the tables need to know about a search; ``live`` means that its run is at work now."""

    metric: str
    mode: Literal["min", "max"]
    trial_cpus: float
    trial_gpus: float
    live: bool


@dataclass(frozen=True)
class Reading:
    """What was read of a storage path, as plain columns, which need no pandas."""

    trials: Sequence[Trial]
    report: ReadReport
    metrics: Mapping[str, str]
    """Each metric's column: the search's own first, then as they appear."""
    columns: Mapping[str, list[Any]]
    """The table of trials, each column all of one form, None for what is missing."""


@dataclass(frozen=True)
class Tables:
    """The trials, their history, and what could not be read of them."""

    trials: DataFrame
    history: DataFrame
    reading: Reading

    @property
    def report(self) -> ReadReport:
        """What was read, and what could not be."""
        return self.reading.report


def read(storage: Path, search: SearchInfo, **known: Any) -> Reading:
    """Read a storage path.

    A metric whose name is another column's (``status``, ``seconds``) is called ``metric/status`` in both
    tables. A metric that was reported as NaN looks like one that was not reported.

    Args:
        storage: the storage path.
        search: what is searched for.
        known: what `read_trials` takes besides.

    Raises:
        RunError: if the storage path exists and cannot be listed.
    """
    trials, report = read_trials(storage, live=search.live, **known)
    metrics = metric_columns([trial.log for trial in trials], search.metric)
    columns = {name: shaped(values) for name, values in _trial_columns(trials, metrics, search).items()}
    return Reading(trials, report, metrics, columns)


def read_tables(storage: Path, search: SearchInfo) -> Tables:
    """Read a storage path into tables for pandas.

    Raises:
        RunError: if the storage path exists and cannot be listed.
    """
    reading = read(storage, search)
    return Tables(frame(reading.columns), _history_table(reading), reading)


def frame(columns: Mapping[str, list[Any]]) -> DataFrame:
    """Return plain columns as a table for pandas."""
    return _data_frame({name: typed(values) for name, values in columns.items()})


def metric_columns(logs: Iterable[Reported], first: str) -> dict[str, str]:
    """Return each metric's column: the search's own first, then as they appear."""
    names = _union(log.metrics for log in logs)
    names.sort(key=lambda name: name != first)
    taken = set(names) | _FIXED
    columns = {}
    for name in names:
        column = name
        if name in _FIXED or name.startswith("config/"):
            while column in taken:
                column = f"metric/{column}"
            taken.add(column)
        columns[name] = column
    return columns


def _union(parts: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for part in parts for name in part))


def _trial_columns(trials: Sequence[Trial], metrics: Mapping[str, str], search: SearchInfo) -> dict[str, list[Any]]:
    logs = [trial.log for trial in trials]
    best = [log.best(search.metric, search.mode) or (None, None) for log in logs]
    columns: dict[str, list[Any]] = {
        "trial_id": [trial.trial_id for trial in trials],
        "status": [trial.status for trial in trials],
    }
    for name in _union(trial.config for trial in trials):
        columns[f"config/{name}"] = [trial.config.get(name) for trial in trials]
    for name, column in metrics.items():
        columns[column] = [log.last(name) for log in logs]
    after = (
        [value for value, _ in best],
        [iteration for _, iteration in best],
        [log.last_iteration for log in logs],
        [log.seconds for log in logs],
        [log.node for log in logs],
        [_iso(log.started) for log in logs],
        ["" if trial.status in _GOING_ON else _iso(trial.log.ended) for trial in trials],
        [trial.checkpoint for trial in trials],
        [trial.error for trial in trials],
    )
    columns |= dict(zip(_AFTER_METRICS, after, strict=True))
    if any(trial.notes for trial in trials):
        columns["notes"] = [trial.notes for trial in trials]
    return columns


def _history_table(reading: Reading) -> DataFrame:
    import numpy

    read = [(trial.trial_id, trial.log) for trial in reading.trials if isinstance(trial.log, ResultLog)]
    reported = [(trial_id, log) for trial_id, log in read if log.rows]
    logs = [log for _, log in reported]
    lengths = [log.rows for log in logs]
    columns = {
        "trial_id": numpy.repeat(typed([trial_id for trial_id, _ in reported]), lengths),
        "training_iteration": merge([log.iterations for log in logs], lengths),
    }
    for name, column in reading.metrics.items():
        columns[column] = merge([log.metrics.get(name) for log in logs], lengths)
    for name in TIMES:
        columns[name] = merge([log.times.get(name) for log in logs], lengths)
    return _data_frame(columns)


def _data_frame(columns: dict[str, Any]) -> DataFrame:
    import pandas

    frame = pandas.DataFrame(dict(enumerate(columns.values())), copy=False)
    frame.columns = pandas.Index([escaped(name) for name in columns], dtype=object)
    return frame


def _iso(time: float | None) -> str:
    if time is None or not 0 <= time < 2**37:  # the year 6325: whatever wrote more than that, it was no clock
        return ""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def best_trial(trials: Mapping[str, Any] | DataFrame, search: SearchInfo) -> dict[str, Any] | None:
    """Return the row with the best ``best_value``, the first of equals; None when no trial has any.

    The values are plain Python ones, None where the table has nothing.
    """
    values = [_plain(value) for value in trials["best_value"]]
    known = [value for value in values if value is not None]
    if not known:
        return None
    place = values.index((min if search.mode == "min" else max)(known))
    return {name: _plain(trials[name][place]) for name in map(str, trials)}


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    missing = value is None or type(value).__name__ == "NAType" or value != value  # noqa: PLR0124 - NaN
    return None if missing else value


def summarize(
    reading: Reading, search: SearchInfo, *, run: str, wall_seconds: float | None, attempts: int
) -> dict[str, Any]:
    """Return the run in one row: counts by state, the best trial and its config, and what it all took.

    CPU- and GPU-hours are trial seconds times the resources of a trial: what the results in the tables took.
    The allocation's idle time and iterations that were lost and done again are not in it.
    """
    trials = reading.columns
    best = best_trial(trials, search) or {}
    states = Counter(trials["status"])
    trial_seconds = math.fsum(trials["seconds"])
    return {
        "run": run,
        "metric": search.metric,
        "mode": search.mode,
        "trials": len(trials["trial_id"]),
        **{state.lower(): states[state] for state in _STATES},
        "best_trial": best.get("trial_id", ""),
        "best_value": best.get("best_value"),
        "best_iteration": best.get("best_iteration"),
        **{name: best.get(name) for name in trials if name.startswith("config/")},
        "wall_seconds": wall_seconds,
        "trial_seconds": trial_seconds,
        "cpu_hours": trial_seconds * search.trial_cpus / 3600,
        "gpu_hours": trial_seconds * search.trial_gpus / 3600,
        "attempts": attempts,
        "repeated_rows": reading.report.repeated_rows,
        "malformed_lines": reading.report.malformed_lines,
    }
