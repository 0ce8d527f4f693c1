"""Node lists as Slurm abbreviates them."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["expand_nodes"]

_PART = re.compile(r"(?:[^,\[]|\[[^\]]*\])+")
_RANGES = re.compile(r"\[([^\]]*)\]")


def expand_nodes(node_list: str) -> list[str]:
    """Return the names that a list such as ``iris-[169-171,180],aion-0001`` stands for, in its order."""
    return [name for part in _PART.findall(node_list) for name in _expand(part)]


def _expand(part: str) -> Iterator[str]:
    found = _RANGES.search(part)
    if found is None:
        yield part
        return
    head, tail = part[: found.start()], list(_expand(part[found.end() :]))
    for number in _numbers(found[1]):
        yield from (f"{head}{number}{rest}" for rest in tail)


def _numbers(ranges: str) -> Iterator[str]:
    """Yield the numbers of ``01-03,7``, as wide as they are written."""
    for each in ranges.split(","):
        first, _, last = each.partition("-")
        if first.isdigit() and last.isdigit():
            yield from (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
        else:
            yield each
