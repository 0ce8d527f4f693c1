"""The tables as files: ``trials.csv``, ``history.csv`` and ``summary.csv``."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from hpc_tune.durable import replacing
from hpc_tune.errors import RunError
from hpc_tune.results.cells import Layout, block, csv_text, form_of, kinds_of, shaped
from hpc_tune.results.columns import escaped
from hpc_tune.results.digest import LogDigest
from hpc_tune.results.resultlog import TIMES, ResultLog
from hpc_tune.results.tables import Reading

__all__ = ["HISTORY", "layout_of", "rows_of", "write_file", "write_summary", "write_tables", "write_trials"]

HISTORY = "history.csv"


def write_tables(directory: Path, reading: Reading, summary: Mapping[str, Any]) -> list[Path]:
    """Write ``trials.csv``, ``history.csv`` and ``summary.csv``; return their paths.

    Each is written beside and renamed, so a reader sees the old table or the new one.

    Raises:
        RunError: if one cannot be written. It is then as it was; those before it are new.
    """
    logs = [(trial.trial_id, trial.log) for trial in reading.trials if isinstance(trial.log, ResultLog)]
    layout = layout_of([trial_id for trial_id, _ in logs], [_digest(log) for _, log in logs], reading.metrics)
    blocks = (rows_of(trial_id, log, layout) for trial_id, log in logs if log.rows)
    return [
        write_trials(directory, reading),
        write_file(directory / HISTORY, chain([layout.header.encode()], blocks)),
        write_summary(directory, summary),
    ]


def _digest(log: ResultLog) -> LogDigest:
    return LogDigest.of(log, "", "max")


def layout_of(trial_ids: Iterable[str], digests: Sequence[LogDigest], metrics: Mapping[str, str]) -> Layout:
    """Return how the history of these trials is written: for each column all of them decide.

    Args:
        trial_ids: their ids.
        digests: what they reported.
        metrics: each metric's column.
    """
    reported = [digest for digest in digests if digest.rows]
    kinds = {"training_iteration": [digest.iteration_kinds for digest in reported]}
    kinds |= {name: [digest.metrics.get(name, "n") for digest in reported] for name in metrics}
    kinds |= {name: [digest.times.get(name, "n") for digest in reported] for name in TIMES}
    names = ("training_iteration", *metrics.values(), *TIMES)
    return Layout(
        names=names,
        sources=("training_iteration", *metrics, *TIMES),
        forms=tuple(map(form_of, map(set, kinds.values()))),
        quote_all=any("\r" in text for text in chain(names, trial_ids))
        or any("r" in each for each in chain.from_iterable(kinds.values())),
    )


def rows_of(trial_id: str, log: ResultLog, layout: Layout) -> bytes:
    """Return a trial's rows of the history."""
    found = (log.metrics, log.times)
    columns = [next((part[name] for part in found if name in part), None) for name in layout.sources[1:]]
    return block(trial_id, [log.iterations, *columns], log.rows, layout)


def write_trials(directory: Path, reading: Reading) -> Path:
    """Write ``trials.csv``."""
    return _write_columns(directory / "trials.csv", reading.columns)


def write_summary(directory: Path, summary: Mapping[str, Any]) -> Path:
    """Write ``summary.csv``."""
    return _write_columns(directory / "summary.csv", {name: shaped([value]) for name, value in summary.items()})


def _write_columns(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    names = list(map(escaped, columns))
    quote_all = any("\r" in name for name in names) or any("r" in kinds_of(list(each)) for each in columns.values())
    text = csv_text([names], quote_all=quote_all) + csv_text(zip(*columns.values(), strict=True), quote_all=quote_all)
    return write_file(path, [text.encode()])


def write_file(path: Path, parts: Iterable[bytes]) -> Path:
    """Write a table in one step.

    Raises:
        RunError: if it cannot be written; it is then as it was.
    """
    try:
        with replacing(path) as file:
            file.writelines(parts)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror or error}"
        raise RunError(message, hint=_hint(error, path.parent)) from error
    return path


def _hint(error: OSError, directory: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"free some space in {directory} (is a quota used up?), then: hpc-tune collect {directory}"
    return f"make {directory} writable, then: hpc-tune collect {directory}"
