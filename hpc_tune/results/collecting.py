"""Collecting again: of the folders that have not changed, all that was read before is used, their rows as they lie."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpc_tune.results.cache import Cache, Entry, Place, save_cache, sign_state
from hpc_tune.results.cells import Layout
from hpc_tune.results.contents import Contents, read_contents
from hpc_tune.results.csvfiles import HISTORY, layout_of, rows_of, write_file, write_summary, write_trials
from hpc_tune.results.digest import LogDigest
from hpc_tune.results.resultlog import ResultLog
from hpc_tune.results.state import read_state
from hpc_tune.results.tables import Reading, SearchInfo, read
from hpc_tune.results.trials import Trial

__all__ = ["Collecting"]


@dataclass
class _Found:
    """What a reading of the storage path has come across."""

    entries: dict[str, Entry] = field(default_factory=dict)
    """By the folder's name."""
    logs: dict[str, ResultLog] = field(default_factory=dict)
    """Of the folders that had to be read."""


class Collecting:
    """One collect of a run."""

    def __init__(self, directory: Path, storage: Path, search: SearchInfo) -> None:
        self._directory, self._storage, self._search = directory, storage, search
        self._cache = Cache.load(directory, self._key)
        self.reading = self._read()
        self._layout = self._new_layout()
        if self._cache.entries and not self._fits():
            self._cache.close()
            self._cache = Cache()
            self.reading = self._read()
            self._layout = self._new_layout()

    @property
    def _key(self) -> tuple[str, str]:
        return self._search.metric, self._search.mode

    def _read(self) -> Reading:
        self._found = _Found()
        self._state_signature = sign_state(self._storage)
        known = self._state_signature and self._state_signature == self._cache.state_signature
        self._state = (self._cache.state if known else None) or read_state(self._storage)
        return read(self._storage, self._search, state=self._state, contents=self._contents)

    def _contents(self, folder: Path) -> Contents:
        entry = self._cache.known(folder) or self._new_entry(folder)
        self._found.entries[folder.name] = entry
        return entry.contents

    def _new_entry(self, folder: Path) -> Entry:
        contents = read_contents(folder)
        log = contents.log
        assert isinstance(log, ResultLog)
        self._found.logs[folder.name] = log
        digest = LogDigest.of(log, *self._key)
        return Entry(replace(contents, log=digest), digest)

    def _reported(self) -> list[Trial]:
        return [trial for trial in self.reading.trials if trial.log.rows]

    def _new_layout(self) -> Layout:
        trials = self._reported()
        digests = [self._found.entries[trial.folder].digest for trial in trials]
        return layout_of([trial.trial_id for trial in trials], digests, self.reading.metrics)

    def _fits(self) -> bool:
        """Tell whether the rows of all trials that were not read can stay as they lie."""
        kept = (trial for trial in self._reported() if trial.folder not in self._found.logs)
        places = self._cache.places
        return self._layout == self._cache.layout and all(
            trial.folder in places and places[trial.folder].trial_id == trial.trial_id for trial in kept
        )

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
        self._leave(places)
        self._cache.close()
        return files

    def _places(self) -> dict[str, Place] | None:
        """Return where the rows lie if nothing is new, else None."""
        before = self._cache.places
        reported = [trial.folder for trial in self._reported()]
        same = not self._found.logs.keys() & set(reported) and reported == list(before)
        return dict(before) if same and self._cache.history is not None else None

    def _parts(self, places: dict[str, Place]) -> Iterator[bytes]:
        """Yield the history; note where each trial's rows come to lie."""
        header = self._layout.header.encode()
        yield header
        offset = len(header)
        for trial in self._reported():
            log, before = self._found.logs.get(trial.folder), self._cache.places.get(trial.folder)
            if log is not None:
                rows = rows_of(trial.trial_id, log, self._layout)
            else:
                assert before is not None
                rows = self._old_rows(before)
            yield rows
            places[trial.folder] = Place(trial.trial_id, offset, len(rows))
            offset += len(rows)

    def _old_rows(self, place: Place) -> bytes:
        assert self._cache.history is not None
        return os.pread(self._cache.history.fileno(), place.length, place.offset)

    def _leave(self, places: Mapping[str, Place]) -> None:
        cache = Cache(self._found.entries, places, self._layout, self._state, self._state_signature)
        save_cache(self._directory, cache, self._key)
