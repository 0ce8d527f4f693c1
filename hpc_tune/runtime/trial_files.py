"""Files that the driver appends to, one per trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

__all__ = ["TrialFiles"]

MOST_OPEN_FILES = 200


class TrialFiles:
    """Keeps the files of trials open while results come; of many paused trials only some."""

    def __init__(self, open_for_append: Callable[[Path], BinaryIO]) -> None:
        self._open = open_for_append
        self._files: dict[Path, BinaryIO] = {}

    def append(self, path: Path, data: bytes) -> None:
        """Add to a file, in one write: a reader may come at any time."""
        file = self._files.pop(path, None)
        if file is None:
            if len(self._files) >= MOST_OPEN_FILES:
                self.close(next(iter(self._files)))
            path.parent.mkdir(parents=True, exist_ok=True)
            file = self._open(path)
        self._files[path] = file
        file.write(data)
        file.flush()

    def close(self, path: Path) -> None:
        """Close a file, if it is open."""
        if (file := self._files.pop(path, None)) is not None:
            file.close()
