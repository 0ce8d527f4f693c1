"""The tables of a run: ``trials.csv``, ``history.csv`` and ``summary.csv``."""

from __future__ import annotations

import csv
import errno
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hpc_tune.durable import replacing
from hpc_tune.errors import RunError
from hpc_tune.results.columns import escaped, merge, typed
from hpc_tune.results.resultlog import TIMES
from hpc_tune.results.trials import ReadReport, Trial, read_trials

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["SearchInfo", "Tables", "best_trial", "read_tables", "summarize", "write_tables"]

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
class Tables:
    """The trials, their history, and what could not be read of them."""

    trials: DataFrame
    history: DataFrame
    report: ReadReport


def read_tables(storage: Path, search: SearchInfo) -> Tables:
    """Read a storage path into tables, without Ray.

    A metric whose name is another column's (``status``, ``seconds``) is called ``metric/status`` in both
    tables. A metric that was reported as NaN looks like one that was not reported.

    Raises:
        RunError: if the storage path exists and cannot be listed.
    """
    trials, report = read_trials(storage, live=search.live)
    metrics = _metric_columns(trials, search.metric)
    return Tables(_trials_table(trials, metrics, search), _history_table(trials, metrics), report)


def _metric_columns(trials: Sequence[Trial], first: str) -> dict[str, str]:
    """Return each metric's column: the search's own first, then as they appear."""
    names = _union(trial.log.metrics for trial in trials)
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


def _trials_table(trials: Sequence[Trial], metrics: dict[str, str], search: SearchInfo) -> DataFrame:
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
        [log.iterations[-1] if log.iterations else 0 for log in logs],
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
    return _frame(columns)


def _history_table(trials: Sequence[Trial], metrics: dict[str, str]) -> DataFrame:
    import numpy

    reported = [trial for trial in trials if trial.log.iterations]
    logs = [trial.log for trial in reported]
    lengths = [len(log.iterations) for log in logs]
    columns = {
        "trial_id": numpy.repeat(typed([trial.trial_id for trial in reported]), lengths),
        "training_iteration": merge([log.iterations for log in logs], lengths),
    }
    for name, column in metrics.items():
        columns[column] = merge([log.metrics.get(name) for log in logs], lengths)
    for name in TIMES:
        columns[name] = merge([log.times.get(name) for log in logs], lengths)
    return _data_frame(columns)


def _frame(columns: dict[str, list[Any]]) -> DataFrame:
    return _data_frame({name: typed(values) for name, values in columns.items()})


def _data_frame(columns: dict[str, Any]) -> DataFrame:
    import pandas

    frame = pandas.DataFrame(dict(enumerate(columns.values())), copy=False)
    frame.columns = pandas.Index([escaped(name) for name in columns], dtype=object)
    return frame


def _iso(time: float | None) -> str:
    if time is None or not 0 <= time < 2**37:  # the year 6325: whatever wrote more than that, it was no clock
        return ""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def best_trial(trials: DataFrame, search: SearchInfo) -> dict[str, Any] | None:
    """Return the row with the best ``best_value``, the first of equals; None when no trial has any.

    The values are plain Python ones, None where the table has nothing.
    """
    import pandas

    values = pandas.to_numeric(trials["best_value"]).astype(float)
    if not values.notna().any():
        return None
    place = int((values.argmin if search.mode == "min" else values.argmax)())
    return {str(name): _plain(trials[name].iloc[place]) for name in trials.columns}


def _plain(value: Any) -> Any:
    import pandas

    if pandas.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def summarize(
    tables: Tables,
    search: SearchInfo,
    *,
    run: str,
    wall_seconds: float | None,
    attempts: int,
) -> DataFrame:
    """Return the run in one row: counts by state, the best trial and its config, and what it all took.

    CPU- and GPU-hours are trial seconds times the resources of a trial: what the results in the tables took.
    The allocation's idle time and iterations that were lost and done again are not in it.
    """
    trials = tables.trials
    best = best_trial(trials, search) or {}
    trial_seconds = float(trials["seconds"].sum())
    row = {
        "run": run,
        "metric": search.metric,
        "mode": search.mode,
        "trials": len(trials),
        **{state.lower(): int((trials["status"] == state).sum()) for state in _STATES},
        "best_trial": best.get("trial_id", ""),
        "best_value": best.get("best_value"),
        "best_iteration": best.get("best_iteration"),
        **{name: best.get(name) for name in trials.columns if name.startswith("config/")},
        "wall_seconds": wall_seconds,
        "trial_seconds": trial_seconds,
        "cpu_hours": trial_seconds * search.trial_cpus / 3600,
        "gpu_hours": trial_seconds * search.trial_gpus / 3600,
        "attempts": attempts,
        "repeated_rows": tables.report.repeated_rows,
        "malformed_lines": tables.report.malformed_lines,
    }
    return _frame({name: [value] for name, value in row.items()})


def write_tables(directory: Path, tables: Tables, summary: DataFrame) -> list[Path]:
    """Write ``trials.csv``, ``history.csv`` and ``summary.csv``; return their paths.

    Each is written beside and renamed, so a reader sees the old table or the new one.

    Raises:
        RunError: if one cannot be written. It is then as it was; those before it are new.
    """
    files = {"trials.csv": tables.trials, "history.csv": tables.history, "summary.csv": summary}
    return [_write_csv(directory / name, frame) for name, frame in files.items()]


def _write_csv(path: Path, frame: DataFrame) -> Path:
    try:
        with replacing(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            frame.to_csv(text, index=False, lineterminator="\n", quoting=_quoting(frame))
            text.flush()
            text.detach()
    except OSError as error:
        message = f"cannot write {path}: {error.strerror or error}"
        raise RunError(message, hint=_hint(error, path.parent)) from error
    return path


def _quoting(frame: DataFrame) -> Literal[0, 2]:
    """Quote all text if any holds a carriage return: csv leaves that bare, and readers end the line there."""
    texts = (frame.iloc[:, place].unique() for place, dtype in enumerate(frame.dtypes) if dtype.kind == "O")
    bare = any(isinstance(cell, str) and "\r" in cell for cell in chain(frame.columns, *texts))
    return csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL


def _hint(error: OSError, directory: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"free some space in {directory} (is a quota used up?), then: hpc-tune collect {directory}"
    return f"make {directory} writable, then: hpc-tune collect {directory}"
