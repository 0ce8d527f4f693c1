"""The result log of one trial: ``result.json``, one JSON object per line, appended to across restores."""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hpc_tune.results.columns import Column, columns_of

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
        return next((value for value in reversed(self.values(name)) if value is not None), None)

    def best(self, name: str, mode: str) -> tuple[float, int] | None:
        """Return a metric's best value and the iteration that reached it first; None without any number."""
        values = self.values(name)
        best = (min if mode == "min" else max)(_numbers(values), default=None)
        return None if best is None else (best, self.iterations[values.index(best)])


def read_log(data: bytes) -> ResultLog:
    """Read the bytes of a ``result.json``; anything may be in them.

    Of repeated iterations, which a restore from before them leaves, the one written last is kept.
    """
    # No other line end separates: U+2028 and its like may stand inside a string.
    lines = [line for line in data.decode("utf-8", "replace").split("\n") if line.strip(" \t\r\0")]
    rows, malformed = _parse(lines)
    if not rows:
        return ResultLog(malformed=malformed)
    by_iteration = {row["training_iteration"]: row for row in rows}
    iterations = sorted(by_iteration)
    kept = [by_iteration[iteration] for iteration in iterations]
    columns = columns_of(kept, _is_kept)
    first, last = rows[0], rows[-1]
    return ResultLog(
        iterations=iterations,
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


def _numbers(values: Column) -> Column:
    if isinstance(values, array):
        return [value for value in values if not math.isnan(value)]
    return [value for value in values if type(value) in (int, float) and not math.isnan(value)]


def _number(row: Mapping[str, Any], key: str) -> float | None:
    return next(iter(_numbers([row.get(key)])), None)


def _began(row: Mapping[str, Any]) -> float | None:
    """Return when an iteration began: its time stamp is that of its end."""
    ended = _number(row, "timestamp")
    return None if ended is None else ended - (_number(row, "time_this_iter_s") or 0.0)
