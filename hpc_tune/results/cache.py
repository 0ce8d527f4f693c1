"""What one collect leaves for the next: of each trial what the tables say, and where its history lies in the CSV.

The file is disposable: it is used only where every file that it speaks of is as it was, by inode, size and time, the
history included; else the source is read anew. It holds no pickles.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from hpc_tune import __version__
from hpc_tune.results.cells import Layout, kinds_of
from hpc_tune.results.contents import Contents, Signature, stamp
from hpc_tune.results.digest import LogDigest
from hpc_tune.results.state import ExperimentState, TrialState

__all__ = ["CACHE_FILE", "Cache", "Entry", "Place", "as_line", "from_line", "save_cache", "sign_state"]

CACHE_FILE = ".collect.cache"
VERSION = 2
SETTLED = 2.0
"""Seconds after which a change cannot bear the time stamp of the one before any more."""


@dataclass(frozen=True)
class Place:
    """Where a trial's rows lie in ``history.csv``."""

    trial_id: str
    offset: int
    length: int


@dataclass(frozen=True)
class Entry:
    """What is known of one folder."""

    contents: Contents
    digest: LogDigest
    line: bytes = b""
    """As the cache's file holds it."""

    @property
    def is_settled(self) -> bool:
        """Whether the signature will tell when something changes."""
        signature = self.contents.signature
        return signature is not None and max(each[0] for each in signature.values()) / 1e9 < time.time() - SETTLED

    @property
    def is_portable(self) -> bool:
        """Whether a line can hold it: its parser knows no whole numbers beyond 64 bits."""
        values = [*self.digest.lasts.values(), *(self.contents.config or {}).values(), self.digest.last_iteration]
        return not {"H", "I"} & set(kinds_of(values))


@dataclass(frozen=True)
class Cache:
    """What the collect before has left; empty if that is of no use."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    """By the folder's name."""
    places: Mapping[str, Place] = field(default_factory=dict)
    layout: Layout | None = None
    state: ExperimentState | None = None
    state_signature: list[int] = field(default_factory=list)
    history: BinaryIO | None = None
    """The table as that collect left it."""

    @classmethod
    def load(cls, directory: Path, search: tuple[str, str]) -> Cache:
        """Read the cache of a run directory for a search's metric and mode."""
        with suppress(OSError, ValueError, TypeError, KeyError, LookupError):
            return _read((directory / CACHE_FILE).read_bytes(), directory / "history.csv", search)
        return cls()

    def close(self) -> None:
        """Let go of the old history."""
        if self.history is not None:
            self.history.close()

    def known(self, storage: str, name: str) -> Entry | None:
        """Return what is known of a folder in which nothing has changed."""
        entry = self.entries.get(name)
        return entry if entry is not None and _is_unchanged(f"{storage}/{name}", entry.contents.signature) else None


def sign_state(storage: Path) -> list[int]:
    """Return the signature of the state that is read first; empty where there is none."""
    try:
        return stamp(str(storage / "state.zip"))
    except OSError:
        return []


def _is_unchanged(folder: str, signature: Signature | None) -> bool:
    """Compare; where the folder itself is unchanged, so are the names in it."""
    try:
        return signature is not None and all(stamp(f"{folder}/{name}") == before for name, before in signature.items())
    except OSError:
        return False


def _read(data: bytes, history: Path, search: tuple[str, str]) -> Cache:
    """Read a cache.

    Raises:
        OSError: if the history is not there.
        ValueError, TypeError, LookupError: if the file is not whole, of another version, or for another history.
    """
    head, state, *lines = data.splitlines()
    header = _loads(head)
    if header["version"] != [VERSION, __version__] or header["search"] != list(search):
        raise ValueError("another version or another search")
    layout = header["layout"]
    cache = Cache(
        entries=dict(map(from_line, lines)),
        places={name: Place(*place) for name, *place in header["places"]},
        layout=Layout(tuple(layout[0]), tuple(layout[1]), tuple(layout[2]), layout[3]),
        state=ExperimentState(tuple(TrialState(*each) for each in _loads(state)), ()),
        state_signature=header["state"],
        history=(file := history.open("rb")),
    )
    if header["history"] != stamp(f"/proc/self/fd/{file.fileno()}"):
        cache.close()
        raise ValueError("another history")
    return cache


def from_line(line: bytes) -> tuple[str, Entry]:
    """Return a folder's name and what is known of it."""
    name, digest, files, config, checkpoint, error, notes, damaged, signature = _loads(line)
    log = LogDigest(**digest)
    contents = Contents(log, tuple(files), config, checkpoint, error, notes, tuple(damaged), signature)
    return name, Entry(contents, log, line)


def _loads(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except ValueError:  # NaN is no JSON
        return json.loads(line)


def as_line(name: str, entry: Entry) -> bytes:
    """Return what is known of a folder as the cache's file holds it."""
    if entry.line:
        return entry.line
    digest, found = entry.digest, entry.contents
    rest = (found.files, found.config, found.checkpoint, found.error, found.notes, found.damaged, found.signature)
    return json.dumps([name, vars(digest), *rest]).encode()


def save_cache(directory: Path, cache: Cache, search: tuple[str, str]) -> None:
    """Leave a cache for the next collect; where it cannot be written there is none."""
    settled = {
        name: entry for name, entry in cache.entries.items() if entry.line or (entry.is_settled and entry.is_portable)
    }
    lines = [_head(directory / "history.csv", cache, search), _state(cache.state)]
    lines += [as_line(name, entry) for name, entry in settled.items()]
    with suppress(OSError):
        _replace(directory / CACHE_FILE, lines)


def _head(history: Path, cache: Cache, search: tuple[str, str]) -> bytes:
    layout = cache.layout
    header = {
        "version": [VERSION, __version__],
        "search": search,
        "history": stamp(str(history)),
        "layout": [layout.names, layout.sources, layout.forms, layout.quote_all] if layout else None,
        "state": cache.state_signature,
        "places": [[name, each.trial_id, each.offset, each.length] for name, each in cache.places.items()],
    }
    return json.dumps(header).encode()


def _state(state: ExperimentState | None) -> bytes:
    trials = state.trials if state else ()
    return json.dumps([[each.trial_id, each.status, each.config, each.folder] for each in trials]).encode()


def _replace(path: Path, lines: Iterable[bytes]) -> None:
    """Replace the file in one step, without waiting for the disk: what is not whole is not used."""
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"\n".join(lines))
        Path(beside).replace(path)
    except OSError:
        Path(beside).unlink(missing_ok=True)
        raise
