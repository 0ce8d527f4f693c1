"""The nearest right word for a wrong one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known word closest to ``word``, or None when none is close."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return advice for a wrong word: the nearest right one, or all there are."""
    words = sorted(known)
    match = nearest(word, words)
    if match is not None:
        return f"did you mean {match!r}?"
    return f"known: {', '.join(words)}" if words else "none is known"
