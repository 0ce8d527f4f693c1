"""A trial's folder: what it holds, whatever the state of the search says of the trial."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from hpc_tune.results.digest import Reported
from hpc_tune.results.failure import error_line
from hpc_tune.results.resultlog import ResultLog, read_log

__all__ = ["FILES", "Contents", "Signature", "flat", "read_contents", "stamp"]

FILES = ("result.json", "params.json", "error.txt", "notes.txt")
"""What is read of a folder; besides, its checkpoints are looked at."""

Signature: TypeAlias = dict[str, list[int]]
"""The `stamp` of a folder (its name empty) and of its files, taken before they were read."""

_TAIL = 2**16
_CHECKPOINT = re.compile(r"checkpoint_(\d+)$")


@dataclass(frozen=True)
class Contents:
    """What a trial's folder holds. ``config`` is flat, and None where no file tells it."""

    log: Reported
    files: tuple[str, ...] = ()
    """Which of `FILES` are there."""
    config: Mapping[str, Any] | None = None
    checkpoint: str = ""
    """The name of the newest one that is whole."""
    error: str = ""
    notes: str = ""
    damaged: tuple[str, ...] = ()
    """Files that are not as they should be; an empty name stands for the folder itself."""
    signature: Signature | None = None
    """None where a change could not be seen by it: not all of this lies in the folder and its files."""

    @property
    def is_trial(self) -> bool:
        """Whether a trial has left something here."""
        return "result.json" in self.files or "params.json" in self.files


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the keys of nested ones joined by ``/``, lists as JSON text."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            inner = {f"{name}/{key}": each for key, each in flat(value).items()}
            found |= inner or {name: None}
        elif isinstance(value, list):
            found[name] = json.dumps(value, ensure_ascii=False)
        else:
            found[name] = value
    return found


def stamp(path: str) -> list[int]:
    """Return what tells whether a file or folder has changed: the time of the last change in ns, the size, the inode.

    Raises:
        OSError: if it is not there.
    """
    found = os.stat(path)  # noqa: PTH116 - thirty thousand times
    return [found.st_mtime_ns, found.st_size, found.st_ino]


def read_contents(folder: Path) -> Contents:
    """Read a folder. What is missing or damaged costs only itself."""
    return _Reader(folder).read()


class _Reader:
    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.damaged: list[str] = []

    def read(self) -> Contents:
        signature = self._stamps([""])
        names = self._names("")
        files = tuple(name for name in FILES if name in names)
        signature |= self._stamps(files)
        log = self._log() if "result.json" in names else ResultLog()
        checkpoint, told = self._checkpoint(names, log)
        return Contents(
            log=log,
            files=files,
            config=self._config() if "params.json" in names else None,
            checkpoint=checkpoint,
            error=error_line(self._tail("error.txt")) if "error.txt" in names else "",
            notes="; ".join(self._tail("notes.txt").split("\n")).rstrip("; ") if "notes.txt" in names else "",
            damaged=tuple(self.damaged),
            signature=signature if told and len(signature) == len(files) + 1 else None,
        )

    def _stamps(self, names: Iterable[str]) -> Signature:
        signature = {}
        for name in names:
            with suppress(OSError):
                signature[name] = stamp(f"{self.folder}/{name}")
        return signature

    def _names(self, name: str) -> set[str]:
        try:
            with os.scandir(f"{self.folder}/{name}") as entries:
                return {entry.name for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            return set()
        except OSError:
            self.damaged.append(name)
            return set()

    def _bytes(self, name: str, *, last: int | None = None) -> bytes | None:
        """Return a file's bytes (the ``last`` ones) or None; one that cannot be read is put on the list."""
        try:
            with open(f"{self.folder}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - twenty thousand times
                if last is not None:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - last))
                return file.read()
        except FileNotFoundError:
            return None
        except OSError:
            self.damaged.append(name)
            return None

    def _tail(self, name: str) -> str:
        return (self._bytes(name, last=_TAIL) or b"").decode("utf-8", "replace")

    def _log(self) -> ResultLog:
        log = read_log(self._bytes("result.json") or b"")
        if log.malformed:
            self.damaged.append("result.json")
        return log

    def _config(self) -> dict[str, Any] | None:
        data = self._bytes("params.json")
        try:
            config = None if data is None else json.loads(data.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            self.damaged.append("params.json")
            config = None
        return flat(config) if isinstance(config, dict) else None

    def _checkpoint(self, names: Collection[str], log: ResultLog) -> tuple[str, bool]:
        """Return the newest checkpoint that is whole, and whether the folder's own entries tell it.

        A result names its checkpoint once that has been copied completely. Class trainables' results name none; then
        the newest folder with something in it has to do.
        """
        found = sorted(filter(_CHECKPOINT.match, names), key=lambda name: int(name.split("_")[1]), reverse=True)
        if log.checkpoints or not found:
            return next((name for name in found if name in log.checkpoints), ""), True
        return next((name for name in found if self._names(name)), ""), False
