"""The snapshot of an experiment's folder: edits made while a job waits change nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hpc_tune.errors import RunError

__all__ = ["take_snapshot"]

LINKED_ABOVE = 10 * 2**20
"""Files larger than this many bytes are linked, not copied: they are data, not code."""
MOST_FILES = 2000
_PASSED_OVER = {"__pycache__", "node_modules", "runs", "venv"}


def take_snapshot(source: Path, target: Path) -> None:
    """Copy the folder that an experiment lies in, without hidden folders, caches, environments and other runs.

    Large files and linked folders become symbolic links to where they are, so code that reads data beside itself
    keeps working.

    Raises:
        RunError: if the folder holds too much to be one experiment's code.
        OSError: if the copy cannot be written.
    """
    files = []
    for file in _files(source):
        files.append(file)
        if len(files) > MOST_FILES:
            raise RunError(
                f"{source} holds more than {MOST_FILES:,} files; a run keeps a snapshot of its experiment's folder",
                hint="put the experiment file and the code that it uses into a folder of their own",
            )
    for file in files:
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir() or file.stat().st_size > LINKED_ABOVE:
            copy.symlink_to(file.resolve())
        else:
            shutil.copy2(file, copy)


def _files(source: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(source):
        subfolders[:] = [name for name in sorted(subfolders) if _belongs(Path(folder, name))]
        yield from (path for name in subfolders if (path := Path(folder, name)).is_symlink())  # walk() stops there
        yield from (
            path for name in sorted(names) if (path := Path(folder, name)).is_file() and not name.endswith(".pyc")
        )


def _belongs(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.name in _PASSED_OVER or folder.name.endswith(".egg-info"):
        return False
    # an environment, or a run directory under another name
    return not (folder / "pyvenv.cfg").exists() and not (folder / "run.json").exists()
