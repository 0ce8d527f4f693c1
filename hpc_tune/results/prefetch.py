"""Reading the folders of many trials in several processes: a shared file system answers them side by side."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from hpc_tune.results.cache import Entry, as_line, from_line
from hpc_tune.results.cells import Layout
from hpc_tune.results.contents import read_contents
from hpc_tune.results.csvfiles import layout_of, rows_of
from hpc_tune.results.digest import LogDigest
from hpc_tune.results.resultlog import ResultLog
from hpc_tune.results.tables import metric_columns

__all__ = ["Prefetched", "gathered", "new_entry", "prefetching", "without_gc"]

MOST_PROCESSES = 4
"""A login node is for others, too."""
WORTH_A_PROCESS = 500
"""Folders; it takes a tenth of a second to start one."""


Part: TypeAlias = "list[tuple[str, bytes, bool, str, bytes, Layout]]"
"""Of each folder its name, its line of the cache and whether that may be kept, the trial's id, its rows, and how these
are written: bytes pass from process to process in no time."""


@dataclass(frozen=True)
class Prefetched:
    """A folder that another process has read."""

    entry: Entry
    trial_id: str
    rows: bytes
    layout: Layout
    """How the rows are written."""


@contextmanager
def without_gc() -> Iterator[None]:
    """Keep Python from looking for cycles among millions of new objects that have none: a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def new_entry(folder: Path, metric: str, mode: str) -> tuple[Entry, ResultLog]:
    """Read a folder."""
    contents = read_contents(folder)
    log = contents.log
    assert isinstance(log, ResultLog)
    digest = LogDigest.of(log, metric, mode)
    return Entry(replace(contents, log=digest), digest), log


@contextmanager
def prefetching(storage: Path, names: Sequence[str], metric: str, mode: str) -> Iterator[list[Future[Part]]]:
    """Have folders read while the block runs; without anything to gain, none.

    Args:
        storage: the storage path.
        names: the folders' names.
        metric: what is searched for.
        mode: whether ``min`` or ``max`` of it.
    """
    processes = min(MOST_PROCESSES, len(os.sched_getaffinity(0)), len(names) // WORTH_A_PROCESS)
    if processes < 2 or threading.active_count() > 1:  # a fork of several threads may hang
        yield []
        return
    size = -(-len(names) // processes)
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
        parts = [names[start : start + size] for start in range(0, len(names), size)]
        yield [pool.submit(_read_part, storage, part, metric, mode) for part in parts]


def gathered(futures: Sequence[Future[Part]]) -> dict[str, Prefetched]:
    """Return what was read, by the folder's name; nothing if a process did not live to tell."""
    found = {}
    try:
        for future in futures:
            for name, line, settled, trial_id, rows, layout in future.result():
                entry = from_line(line)[1]
                found[name] = Prefetched(entry if settled else replace(entry, line=b""), trial_id, rows, layout)
    except BrokenExecutor:
        return {}
    return found


def _read_part(storage: Path, names: Sequence[str], metric: str, mode: str) -> Part:
    """Read folders; what does not pass from process to process unchanged is left to the one that asked."""
    with without_gc():
        read = [(name, *new_entry(storage / name, metric, mode)) for name in names]
        read = [each for each in read if each[1].is_portable]
        digests = [entry.digest for _, entry, _ in read]
        ids = [entry.digest.trial_id or name for name, entry, _ in read]
        layout = layout_of(ids, digests, metric_columns(digests, metric))
        return [
            (name, as_line(name, entry), entry.is_settled, trial_id, rows_of(trial_id, log, layout), layout)
            for trial_id, (name, entry, log) in zip(ids, read, strict=True)
        ]
