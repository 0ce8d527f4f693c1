"""Files that are never half-written: write beside, flush to the disk, rename."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["is_full", "is_listed", "read_json", "replacing", "write_json", "write_text"]


@contextmanager
def replacing(path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of ``path`` when the block ends well, and vanishes when it does not.

    The temporary file lies in the same directory, since a rename is atomic only within one file system. Its name
    starts with a dot and ends in ``.tmp``, which every reader of a run directory passes over.

    Raises:
        OSError: if the disk is full or the directory cannot be written; ``path`` is then as it was.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(mode)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replace a text file in one step. Lone surrogates, as in file names that are no UTF-8, are escaped as in JSON."""
    with replacing(path, mode=mode) as file:
        file.write(text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def is_full(error: OSError) -> bool:
    """Tell whether an error means that a disk or a quota is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_listed(path: Path) -> bool:
    """Tell whether a file is there, as its directory lists it.

    A client of a network file system that has once been told that a file does not exist may go on believing so for
    minutes; a listing asks the server.
    """
    try:
        return any(entry.name == path.name for entry in path.parent.iterdir())
    except FileNotFoundError:
        return False


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, or None when there is none (yet) or it is not whole."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None
