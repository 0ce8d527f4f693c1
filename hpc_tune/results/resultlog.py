"""The result log of one trial: ``result.json``, one JSON object per line, appended to across restores."""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from operator import ge, itemgetter
from typing import Any

import orjson

from hpc_tune.results.columns import Column, columns_of, compact

__all__ = ["TIMES", "ResultLog", "read_log"]

TIMES = ("time_total_s", "time_this_iter_s", "timestamp")
"""What Ray adds to each result and the history keeps."""

_NOT_KEPT = frozenset(
    {
        "checkpoint_bytes",
        "checkpoint_dir_name",
        "config",
        "date",
        "done",
        "experiment_tag",
        "hostname",
        "iterations_since_restore",
        "node_ip",
        "pid",
        "should_checkpoint",
        "time_since_restore",
        "training_iteration",
        "trial_id",
    }
)
_BLANK = " \t\r\0"
_ROUNDED = 2.0**63
"""From here on a float may stand for a whole number that was written in full; text may be that of a list with one."""
_OBJECT = re.compile(r'\{\s*"')


@dataclass(frozen=True)
class ResultLog:
    """What one trial reported, each iteration once, in order.

    ``done``, ``node`` and ``ended`` are those of the line written last, which after a restore need not be the
    one with the highest iteration; ``started`` is when the first of all iterations began (Unix seconds).
    """

    iterations: Column = field(default_factory=list)
    metrics: Mapping[str, Column] = field(default_factory=dict)
    times: Mapping[str, Column] = field(default_factory=dict)
    checkpoints: frozenset[str] = frozenset()
    trial_id: str | None = None
    node: str = ""
    started: float | None = None
    ended: float | None = None
    done: bool = False
    repeated: int = 0
    malformed: int = 0

    @property
    def rows(self) -> int:
        """Return how many iterations there are, each counted once."""
        return len(self.iterations)

    @property
    def last_iteration(self) -> int:
        """Return the highest iteration; 0 without any."""
        return int(self.iterations[-1]) if self.iterations else 0

    @property
    def is_exact(self) -> bool:
        """Whether no number can be one that a parser of 64 bits has rounded."""
        return all(map(_is_exact, (self.iterations, *self.metrics.values(), *self.times.values())))

    @property
    def seconds(self) -> float:
        """Return the time that went into the rows that are kept.

        Not ``time_total_s``: that starts from zero after a restore without a checkpoint, and after an exploit
        of PBT it holds another trial's time. Work that was done twice counts once.
        """
        return float(sum(_numbers(self.times.get("time_this_iter_s", []))))

    def values(self, name: str) -> Column:
        """Return a metric's value per iteration; or a time's, or the iteration: a search may rank by them."""
        if name == "training_iteration":
            return self.iterations
        return self.metrics.get(name, self.times.get(name, []))

    def last(self, name: str) -> Any:
        """Return a metric's last value; one that was not in every report had it earlier. NaN is a value."""
        values = self.values(name)
        if isinstance(values, array):
            return values[-1]
        return next((value for value in reversed(values) if value is not None), None)

    def best(self, name: str, mode: str) -> tuple[float, int] | None:
        """Return a metric's best value and the iteration that reached it first; None without any number."""
        values = self.values(name)
        best = (min if mode == "min" else max)(_numbers(values), default=None)
        return None if best is None else (best, self.iterations[values.index(best)])


def read_log(data: bytes) -> ResultLog:
    """Read the bytes of a ``result.json``; anything may be in them.

    Of repeated iterations, which a restore from before them leaves, the one written last is kept.
    """
    rows = _parse_strictly(data)
    log = _log_of(rows, 0) if rows else None
    if log is not None and log.is_exact:
        return log
    # No other line end separates: U+2028 and its like may stand inside a string.
    lines = [line for line in data.decode("utf-8", "replace").split("\n") if line.strip(_BLANK)]
    return _log_of(*_parse(lines))


def _log_of(rows: list[dict[str, Any]], malformed: int) -> ResultLog:
    if not rows:
        return ResultLog(malformed=malformed)
    iterations = [row["training_iteration"] for row in rows]
    kept = rows
    if any(map(ge, iterations, iterations[1:])):
        by_iteration = dict(zip(iterations, rows, strict=True))
        iterations = sorted(by_iteration)
        kept = [by_iteration[iteration] for iteration in iterations]
    columns = columns_of(kept, _is_kept)
    first, last = rows[0], rows[-1]
    return ResultLog(
        iterations=compact(iterations, {int}),
        metrics={name: column for name, column in columns.items() if name not in TIMES},
        times={name: column for name, column in columns.items() if name in TIMES},
        checkpoints=frozenset(str(name) for row in rows if (name := row.get("checkpoint_dir_name"))),
        trial_id=str(last["trial_id"]) if last.get("trial_id") else None,
        node=str(last.get("hostname") or last.get("node_ip") or ""),
        started=_began(first),
        ended=_number(last, "timestamp"),
        done=last.get("done") is True,
        repeated=len(rows) - len(kept),
        malformed=malformed,
    )


def _parse_strictly(data: bytes) -> list[dict[str, Any]] | None:
    """Return the results of a log in which every line is one, by the fastest parser; None if it finds anything else.

    It knows neither NaN nor whole numbers of more than 64 bits.
    """
    lines = data.strip(_BLANK.encode() + b"\n")
    try:
        rows = orjson.loads(b"[" + lines.replace(b"\n", b",\n") + b"]")
    except ValueError:
        return None
    with suppress(TypeError, KeyError):
        kinds = set(map(type, map(itemgetter("training_iteration"), rows)))
        if len(rows) == lines.count(b"\n") + 1 and kinds == {int}:
            return list(rows)
    return None


def _parse(lines: list[str]) -> tuple[list[dict[str, Any]], int]:
    """Return the results and the number of lines that are not one."""
    rows = _loads("[" + ",\n".join(lines) + "]")  # all at once is faster, and nearly always possible
    if isinstance(rows, list) and len(rows) == len(lines) and all(map(_is_result, rows)):
        return rows, 0
    rows, malformed = [], 0
    for line in lines:
        row = _loads(line)
        if not _is_result(row):
            malformed += 1
            row = _second_half(line)
        if row is not None:
            rows.append(row)
    return rows, malformed


def _second_half(line: str) -> dict[str, Any] | None:
    """Return the whole result at the end of a line that begins with half of one.

    A process that dies while writing leaves no line end behind, and the next one appends to what it finds.
    """
    for start in _OBJECT.finditer(line, 1):
        row = _loads(line[start.start() :])
        # the trial id tells a result from a nested object that happens to end the line
        if _is_result(row) and "trial_id" in row:
            return dict(row)
    return None


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_kept(key: str) -> bool:
    return key not in _NOT_KEPT and not key.startswith("__")


def _is_result(value: Any) -> bool:
    return type(value) is dict and type(value.get("training_iteration")) is int


def _is_exact(column: Column) -> bool:
    if isinstance(column, array):
        return column.typecode == "q" or -_ROUNDED < min(column) <= max(column) < _ROUNDED
    return not any(
        (type(value) is float and abs(value) >= _ROUNDED) or (type(value) is str and value.startswith("["))
        for value in column
    )


def _numbers(values: Column) -> Column:
    if isinstance(values, array):
        return values if not math.isnan(sum(values)) else [value for value in values if not math.isnan(value)]
    return [value for value in values if type(value) in (int, float) and not math.isnan(value)]


def _number(row: Mapping[str, Any], key: str) -> float | None:
    return next(iter(_numbers([row.get(key)])), None)


def _began(row: Mapping[str, Any]) -> float | None:
    """Return when an iteration began: its time stamp is that of its end."""
    ended = _number(row, "timestamp")
    return None if ended is None else ended - (_number(row, "time_this_iter_s") or 0.0)
