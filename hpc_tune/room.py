"""What takes up a disk, for somebody who has to make room on it."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["as_size", "largest"]

_MOST_SECONDS = 5.0


def largest(folder: Path, *, most: int = 3, seconds: float = _MOST_SECONDS) -> dict[Path, int]:
    """Return the entries of a folder that take up the most bytes, the largest first.

    Whoever asks is about to end: what has not been counted when the time is over, is left out.
    """
    deadline = time.monotonic() + seconds
    sizes: dict[Path, int] = {}
    try:
        for entry in os.scandir(folder):
            sizes[Path(entry.path)] = _bytes(entry, deadline)
    except OSError:
        pass
    taken = sorted(sizes.items(), key=lambda item: item[1], reverse=True)
    return {path: size for path, size in taken[:most] if size}


def _bytes(entry: os.DirEntry[str], deadline: float) -> int:
    """Return the bytes of the blocks that are allocated to a file, or to all files below a folder."""
    size = 0
    waiting = [entry]
    while waiting and time.monotonic() < deadline:
        each = waiting.pop()
        try:
            size += each.stat(follow_symlinks=False).st_blocks * 512  # stat(2): in units of 512 bytes
            if each.is_dir(follow_symlinks=False):
                with os.scandir(each.path) as inner:
                    waiting.extend(inner)
        except OSError:  # somebody else's, or just deleted
            continue
    return size


def as_size(number: float) -> str:
    """Return a number of bytes as people read it: 12.3 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.1f} {unit}" if unit != "bytes" else f"{number:.0f} bytes"
        number /= 1000
    return f"{number:.1f} TB"
