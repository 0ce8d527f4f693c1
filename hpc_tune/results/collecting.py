"""Collecting again: of the folders that have not changed, all that was read before is used, their rows as they lie."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_tune.results.cache import Cache, Entry, Place, save_cache, sign_state
from hpc_tune.results.cells import Layout
from hpc_tune.results.contents import Contents
from hpc_tune.results.csvfiles import HISTORY, layout_of, rows_of, write_file, write_summary, write_trials
from hpc_tune.results.prefetch import Prefetched, gathered, new_entry, prefetching, without_gc
from hpc_tune.results.resultlog import ResultLog
from hpc_tune.results.state import read_state
from hpc_tune.results.tables import SearchInfo, read
from hpc_tune.results.trials import Trial

__all__ = ["Collecting"]


@dataclass
class _Found:
    """What a reading of the storage path has come across, by the folder's name."""

    entries: dict[str, Entry] = field(default_factory=dict)
    logs: dict[str, ResultLog] = field(default_factory=dict)
    """Of the folders that were read here."""
    prefetched: dict[str, Prefetched] = field(default_factory=dict)
    """Those that other processes read."""


class Collecting:
    """One collect of a run."""

    def __init__(self, directory: Path, storage: Path, search: SearchInfo) -> None:
        self._directory, self._storage, self._search = directory, storage, search
        with without_gc():
            self._cache = Cache.load(directory, self._key)
            self._read(in_parallel=True)
            if not self._fits():
                # the rows of all trials are to be written in another way than so far
                self._cache.close()
                self._cache = Cache()
                self._read(in_parallel=False)

    @property
    def _key(self) -> tuple[str, str]:
        return self._search.metric, self._search.mode

    def _read(self, *, in_parallel: bool) -> None:
        self._found = _Found()
        self._known = self._unchanged()
        names = [name for name, entry in self._known.items() if entry is None] if in_parallel else []
        with prefetching(self._storage, names, *self._key) as parts:
            self._state_signature = sign_state(self._storage)
            known = self._state_signature and self._state_signature == self._cache.state_signature
            self._state = (self._cache.state if known else None) or read_state(self._storage)
            self._found.prefetched = gathered(parts)
        self.reading = read(self._storage, self._search, state=self._state, contents=self._contents)
        self._layout = self._new_layout()

    def _unchanged(self) -> dict[str, Entry | None]:
        """Return what is known of each folder, None where it has to be read."""
        try:
            with os.scandir(self._storage) as entries:
                names = [entry.name for entry in entries if entry.is_dir()]
        except OSError:  # reading it says what is wrong
            names = []
        return {name: self._cache.known(str(self._storage), name) for name in sorted(names)}

    def _contents(self, name: str) -> Contents:
        entry = self._known.get(name)
        if entry is None and name in self._found.prefetched:
            entry = self._found.prefetched[name].entry
        if entry is None:
            entry, self._found.logs[name] = new_entry(self._storage / name, *self._key)
        self._found.entries[name] = entry
        return entry.contents

    def _reported(self) -> list[Trial]:
        return [trial for trial in self.reading.trials if trial.log.rows]

    def _new_layout(self) -> Layout:
        trials = self._reported()
        digests = [self._found.entries[trial.folder].digest for trial in trials]
        return layout_of([trial.trial_id for trial in trials], digests, self.reading.metrics)

    def _fits(self) -> bool:
        """Tell whether the rows of all trials that were not read here can stay as they are."""
        return all(self._fits_row(trial) for trial in self._reported() if trial.folder not in self._found.logs)

    def _fits_row(self, trial: Trial) -> bool:
        if (part := self._found.prefetched.get(trial.folder)) is not None:
            return part.layout == self._layout and part.trial_id == trial.trial_id
        place = self._cache.places.get(trial.folder)
        return place is not None and place.trial_id == trial.trial_id and self._cache.layout == self._layout

    def write(self, summary: Mapping[str, Any]) -> list[Path]:
        """Write the tables, the history only if anything in it is new, and leave a cache.

        Raises:
            RunError: if one cannot be written. It is then as it was; those before it are new.
        """
        trials = write_trials(self._directory, self.reading)
        history = self._directory / HISTORY
        places = self._places()
        if places is None:
            places = {}
            write_file(history, self._parts(places))
        files = [trials, history, write_summary(self._directory, summary)]
        if not self._is_cached(places):
            self._leave(places)
        self._cache.close()
        return files

    def _places(self) -> dict[str, Place] | None:
        """Return where the rows lie if nothing is new, else None."""
        before, reported = self._cache.places, [trial.folder for trial in self._reported()]
        same = reported == list(before) and all(self._known.get(folder) is not None for folder in reported)
        return dict(before) if same and self._cache.history is not None else None

    def _parts(self, places: dict[str, Place]) -> Iterator[bytes]:
        """Yield the history; note where each trial's rows come to lie."""
        header = self._layout.header.encode()
        yield header
        offset = len(header)
        for trial in self._reported():
            rows = self._rows(trial)
            yield rows
            places[trial.folder] = Place(trial.trial_id, offset, len(rows))
            offset += len(rows)

    def _rows(self, trial: Trial) -> bytes:
        if (log := self._found.logs.get(trial.folder)) is not None:
            return rows_of(trial.trial_id, log, self._layout)
        if (part := self._found.prefetched.get(trial.folder)) is not None:
            return part.rows
        assert self._cache.history is not None
        place = self._cache.places[trial.folder]
        return os.pread(self._cache.history.fileno(), place.length, place.offset)

    def _is_cached(self, places: Mapping[str, Place]) -> bool:
        """Tell whether the cache that is there says all this already."""
        same = places == self._cache.places and self._state is self._cache.state
        return same and len(self._known) == len(self._cache.entries) and None not in self._known.values()

    def _leave(self, places: Mapping[str, Place]) -> None:
        cache = Cache(self._found.entries, places, self._layout, self._state, self._state_signature)
        save_cache(self._directory, cache, self._key)
