"""Lengths of time as people write them: ``"90s"``, ``"1h30m"``, ``"02:00:00"``, ``"1-12:00:00"``, or seconds."""

from __future__ import annotations

import math
import re
from typing import Any

__all__ = ["format_clock", "format_seconds", "parse_seconds"]

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_WORDS = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d{2}):(\d{2})")  # as Slurm writes it


def parse_seconds(value: Any) -> float:
    """Return the seconds that ``value`` stands for; a bare number is seconds.

    Raises:
        ValueError: if it is not a length of time, or not above zero.
    """
    seconds = _seconds(value)
    if seconds is None or not 0 < seconds < math.inf:
        raise ValueError(f'expected a time such as "90s", "1h30m" or "02:00:00", got {value!r}')
    return seconds


def _seconds(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, str):
        return None
    text = value.strip().lower().replace(" ", "")
    if clock := _CLOCK.fullmatch(text):
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return float(days * 86400 + hours * 3600 + minutes * 60 + seconds)
    if text and (words := _WORDS.fullmatch(text)):
        return sum(float(part or 0) * unit for part, unit in zip(words.groups(), _UNITS.values(), strict=True))
    return None


def format_seconds(seconds: float) -> str:
    """Return a length of time for people: ``8 s``, ``2 min 05 s``, ``1 h 30 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def format_clock(seconds: float) -> str:
    """Return a length of time as Slurm reads and writes it: ``02:00:00``, ``48:00:00``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"
