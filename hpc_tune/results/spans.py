"""When and where trials trained: every result is a piece of time on a node, also those that a restore repeated."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["Span", "in_slots", "read_spans"]

PAUSE = 5.0
"""Seconds between two results of one process that still count as one piece: Ray stamps whole seconds."""


@dataclass(frozen=True)
class Span:
    """A piece of a trial's work in one process, in Unix seconds; ``slot`` counts from 0 on its node."""

    trial_id: str
    node: str
    process: int
    start: float
    end: float
    results: int = 1
    slot: int = 0


def read_spans(storage: Path, trial_ids: Iterable[str]) -> list[Span]:
    """Return the pieces of all trials, by start, each in a slot of its node."""
    spans = (span for trial_id in trial_ids for span in _joined(_pieces(storage / trial_id / "result.json", trial_id)))
    return in_slots(spans)


def _pieces(path: Path, trial_id: str) -> Iterator[Span]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return
    for line in lines:
        try:
            row = json.loads(line)
            yield _piece(row, trial_id)
        except (ValueError, TypeError, KeyError):  # half a line, or a result without a time
            continue


def _piece(row: dict[str, Any], trial_id: str) -> Span:
    end = float(row["timestamp"])
    node = str(row.get("hostname") or row.get("node_ip") or "?")
    return Span(trial_id, node, int(row.get("pid") or 0), end - float(row["time_this_iter_s"]), end)


def _joined(pieces: Iterable[Span]) -> Iterator[Span]:
    last: Span | None = None
    for piece in pieces:
        if last is None:
            last = piece
        elif (piece.node, piece.process) == (last.node, last.process) and piece.start - last.end <= PAUSE:
            last = replace(last, end=max(last.end, piece.end), results=last.results + 1)
        else:
            yield last
            last = piece
    if last is not None:
        yield last


def in_slots(spans: Iterable[Span]) -> list[Span]:
    """Give each span the lowest slot of its node that is free, as the next trial takes the GPU of the one before."""
    free: dict[str, list[float]] = {}
    placed = []
    for span in sorted(spans, key=lambda span: (span.start, span.trial_id)):
        ends = free.setdefault(span.node, [])
        # a second: the resolution of Ray's time stamps
        slot = next((number for number, end in enumerate(ends) if end <= span.start + 1.0), len(ends))
        ends[slot : slot + 1] = [span.end]
        placed.append(replace(span, slot=slot))
    return placed
