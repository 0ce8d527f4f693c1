"""The trials of a storage path: their folders and the experiment state, put together."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_tune.errors import RunError
from hpc_tune.results.columns import columns_of
from hpc_tune.results.failure import error_line
from hpc_tune.results.resultlog import ResultLog, read_log
from hpc_tune.results.state import ExperimentState, TrialState, read_state

__all__ = ["ReadReport", "Trial", "read_trials"]

_ERROR_TAIL = 2**16
_NAMED = 3
_CHECKPOINT = re.compile(r"checkpoint_(\d+)$")
_NUMBERED = re.compile(r"_(\d+)$")


@dataclass(frozen=True)
class Trial:
    """One trial as its folder and the experiment state show it.

    ``status`` is Ray's word, or INTERRUPTED for a trial that a run which is no longer live left unfinished.
    ``config`` is flat, ``checkpoint`` relative to the run directory, ``error`` one line and empty unless it
    failed.
    """

    trial_id: str
    status: str
    config: Mapping[str, Any]
    log: ResultLog
    checkpoint: str = ""
    error: str = ""
    notes: str = ""
    """What happened to it that its results do not show, such as a checkpoint that was damaged."""


@dataclass(frozen=True)
class ReadReport:
    """What was read, and what could not be.

    ``malformed_files`` are those with malformed lines, and those that could not be read at all.
    """

    trials: int
    rows: int
    repeated_rows: int
    malformed_lines: int
    malformed_files: tuple[Path, ...]

    def warning(self) -> str | None:
        """Say in a sentence what is missing from the tables, or None when nothing is."""
        if not self.malformed_files:
            return None
        lines, files = self.malformed_lines, self.malformed_files
        named = ", ".join(str(Path(*path.parts[-2:])) for path in files[:_NAMED])
        more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
        damaged = f"damaged: {named}{more}"
        return f"{lines} half-written line{'s' * (lines != 1)} found; {damaged}" if lines else damaged


def read_trials(storage: Path, *, live: bool) -> tuple[list[Trial], ReadReport]:
    """Read every trial of a storage path, in order of number or, where trial ids have none, of start.

    The folders are the truth: after a hard kill the state is older than they are, or missing. The state adds
    the status, and trials that have not started. A storage path that does not exist (yet) has no trials.

    Args:
        storage: the storage path.
        live: whether the run is at work; if not, what has begun and not ended is INTERRUPTED.

    Raises:
        RunError: if the storage path exists and cannot be listed.
    """
    reader = _Reader(storage, read_state(storage), live)
    trials = sorted(reader.trials(), key=_order)
    report = ReadReport(
        trials=len(trials),
        rows=sum(len(trial.log.iterations) for trial in trials),
        repeated_rows=sum(trial.log.repeated for trial in trials),
        malformed_lines=sum(trial.log.malformed for trial in trials),
        malformed_files=tuple(reader.malformed_files),
    )
    return trials, report


def _order(trial: Trial) -> tuple[float, float, str]:
    number = _NUMBERED.search(trial.trial_id)
    started = math.inf if trial.log.started is None else trial.log.started
    return (int(number[1]) if number else math.inf), started, trial.trial_id


class _Reader:
    """One reading of a storage path; collects the files that are not as they should be."""

    def __init__(self, storage: Path, state: ExperimentState, live: bool) -> None:
        self.storage = storage
        self.live = live
        self.states = {trial.trial_id: trial for trial in state.trials}
        self.by_folder = {trial.folder or trial.trial_id: trial for trial in state.trials}
        self.malformed_files = list(state.unreadable)

    def trials(self) -> list[Trial]:
        trials = {}
        for folder in self._folders():
            trial = self._from_folder(folder)
            if trial is not None:
                trials[trial.trial_id] = trial
        unstarted = [state for trial_id, state in self.states.items() if trial_id not in trials]
        return [*trials.values(), *map(self._from_state, unstarted)]

    def _folders(self) -> list[Path]:
        try:
            with os.scandir(self.storage) as entries:
                return sorted(self.storage / entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunError(f"cannot list {self.storage}: {error.strerror or error}") from error

    def _from_folder(self, folder: Path) -> Trial | None:
        names = self._names(folder)
        state = self.by_folder.get(folder.name)
        if state is None and not names & {"result.json", "params.json"}:
            return None
        log = self._log(folder / "result.json") if "result.json" in names else ResultLog()
        trial_id = state.trial_id if state else log.trial_id or folder.name
        state = self.states.get(trial_id)
        status = _status(state, log, begun="result.json" in names, live=self.live)
        return Trial(
            trial_id=trial_id,
            status=status,
            config=_flat(self._config(folder / "params.json", state)),
            log=log,
            checkpoint=self._checkpoint(folder, names, log),
            error=self._error(folder / "error.txt") if status == "ERROR" else "",
            notes=self._notes(folder / "notes.txt") if "notes.txt" in names else "",
        )

    def _from_state(self, state: TrialState) -> Trial:
        log = ResultLog()
        status = _status(state, log, begun=False, live=self.live)
        return Trial(state.trial_id, status, _flat(state.config), log)

    def _names(self, folder: Path) -> set[str]:
        try:
            with os.scandir(folder) as entries:
                return {entry.name for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            return set()
        except OSError:
            self.malformed_files.append(folder)
            return set()

    def _bytes(self, path: Path, *, last: int | None = None) -> bytes | None:
        """Return a file's bytes (the ``last`` ones) or None; one that cannot be read is put on the list."""
        try:
            with path.open("rb") as file:
                if last is not None:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - last))
                return file.read()
        except FileNotFoundError:
            return None
        except OSError:
            self.malformed_files.append(path)
            return None

    def _log(self, path: Path) -> ResultLog:
        log = read_log(self._bytes(path) or b"")
        if log.malformed:
            self.malformed_files.append(path)
        return log

    def _config(self, path: Path, state: TrialState | None) -> dict[str, Any]:
        data = self._bytes(path)
        try:
            config = None if data is None else json.loads(data.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            self.malformed_files.append(path)
            config = None
        if isinstance(config, dict):
            return config
        return state.config if state else {}

    def _error(self, path: Path) -> str:
        data = self._bytes(path, last=_ERROR_TAIL) or b""
        return error_line(data.decode("utf-8", "replace"))

    def _notes(self, path: Path) -> str:
        data = self._bytes(path, last=_ERROR_TAIL) or b""
        return "; ".join(data.decode("utf-8", "replace").split("\n")).rstrip("; ")

    def _checkpoint(self, folder: Path, names: set[str], log: ResultLog) -> str:
        """Return the newest checkpoint that is whole, relative to the run directory.

        A result names its checkpoint once that has been copied completely. Class trainables' results name
        none; then the newest folder with something in it has to do.
        """
        found = filter(_CHECKPOINT.match, names)
        for name in sorted(found, key=lambda name: int(name.split("_")[1]), reverse=True):
            if name in log.checkpoints or (not log.checkpoints and self._names(folder / name)):
                return f"{self.storage.name}/{folder.name}/{name}"
        return ""


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: column[0] for name, column in columns_of([config]).items()}


def _status(state: TrialState | None, log: ResultLog, *, begun: bool, live: bool) -> str:
    """Tell a trial's status from the state and, where that is older than the folder, from the folder."""
    status = state.status if state else "PENDING"
    if status == "PENDING" and begun:  # the state was saved before the trial started
        status = "RUNNING"
    if log.done and status != "ERROR":
        status = "TERMINATED"
    return "INTERRUPTED" if not live and status in ("RUNNING", "PAUSED") else status
