"""How single things read: errors, numbers, states, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import click

from hpc_tune.errors import HpcTuneError

__all__ = ["JSON_SCHEMA", "STATE_WORDS", "error", "number", "sparkline", "states", "to_json"]

JSON_SCHEMA = 1

_BARS = "▁▂▃▄▅▆▇█"

STATE_WORDS = {
    "TERMINATED": "finished",
    "RUNNING": "running",
    "PENDING": "waiting",
    "PAUSED": "paused",
    "ERROR": "failed",
    "INTERRUPTED": "interrupted",
}


def error(failure: HpcTuneError) -> None:
    """Say what went wrong and what to type next."""
    click.echo(f"error: {failure.message}", err=True)
    if failure.hint:
        click.echo(f"hint: {failure.hint}", err=True)


def number(value: Any) -> str:
    """Return a number as people read it; anything else as it is."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def sparkline(values: Sequence[float]) -> str:
    """Return a curve as bars of text, from the lowest value to the highest; what is not finite is a gap."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(_BARS) - 1) / (high - low or 1.0)
    return "".join(_BARS[round((value - low) * scale)] if math.isfinite(value) else " " for value in values)


def states(counts: Mapping[str, int]) -> str:
    """Return numbers of trials by state as people read them; empty when there are none."""
    return ", ".join(f"{counts[state]} {word}" for state, word in STATE_WORDS.items() if counts.get(state))


def to_json(record: Mapping[str, Any]) -> str:
    """Return a versioned JSON object; what is not a number becomes null, since JSON has no NaN."""
    return json.dumps({"schema": JSON_SCHEMA} | _plain(record), indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
