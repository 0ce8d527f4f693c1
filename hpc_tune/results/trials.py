"""The trials of a storage path: their folders and the experiment state, put together."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_tune.errors import RunError
from hpc_tune.results.contents import Contents, flat, read_contents
from hpc_tune.results.digest import Reported
from hpc_tune.results.resultlog import ResultLog
from hpc_tune.results.state import ExperimentState, TrialState, read_state

__all__ = ["ReadReport", "Trial", "read_trials"]

_NAMED = 3
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
    log: Reported
    checkpoint: str = ""
    error: str = ""
    notes: str = ""
    """What happened to it that its results do not show, such as a checkpoint that was damaged."""
    folder: str = ""
    """Its folder's name in the storage path; empty for one that has not started."""


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


def read_trials(
    storage: Path,
    *,
    live: bool,
    state: ExperimentState | None = None,
    contents: Callable[[str], Contents] | None = None,
) -> tuple[list[Trial], ReadReport]:
    """Read every trial of a storage path, in order of number or, where trial ids have none, of start.

    The folders are the truth: after a hard kill the state is older than they are, or missing. The state adds
    the status, and trials that have not started. A storage path that does not exist (yet) has no trials.

    Args:
        storage: the storage path.
        live: whether the run is at work; if not, what has begun and not ended is INTERRUPTED.
        state: the state of the search, where it is known already.
        contents: returns what a folder of this name holds, where something is known of it already.

    Raises:
        RunError: if the storage path exists and cannot be listed.
    """
    reader = _Reader(
        storage, state or read_state(storage), contents or (lambda name: read_contents(storage / name)), live
    )
    trials = sorted(reader.trials(), key=_order)
    report = ReadReport(
        trials=len(trials),
        rows=sum(trial.log.rows for trial in trials),
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

    def __init__(self, storage: Path, state: ExperimentState, contents: Callable[[str], Contents], live: bool) -> None:
        self.storage = storage
        self.live = live
        self.contents = contents
        self.states = {trial.trial_id: trial for trial in state.trials}
        self.by_folder = {trial.folder or trial.trial_id: trial for trial in state.trials}
        self.malformed_files = list(state.unreadable)

    def trials(self) -> list[Trial]:
        trials = {}
        for name in self._folders():
            trial = self._from_folder(name)
            if trial is not None:
                trials[trial.trial_id] = trial
        unstarted = [state for trial_id, state in self.states.items() if trial_id not in trials]
        return [*trials.values(), *map(self._from_state, unstarted)]

    def _folders(self) -> list[str]:
        try:
            with os.scandir(self.storage) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunError(f"cannot list {self.storage}: {error.strerror or error}") from error

    def _from_folder(self, name: str) -> Trial | None:
        contents = self.contents(name)
        state = self.by_folder.get(name)
        if state is None and not contents.is_trial:
            return None
        self.malformed_files += [self.storage / name / file for file in contents.damaged]
        trial_id = state.trial_id if state else contents.log.trial_id or name
        state = self.states.get(trial_id)
        status = _status(state, contents.log, begun="result.json" in contents.files, live=self.live)
        config = contents.config
        if config is None:
            config = flat(state.config) if state else {}
        return Trial(
            trial_id=trial_id,
            status=status,
            config=config,
            log=contents.log,
            checkpoint=f"{self.storage.name}/{name}/{contents.checkpoint}" if contents.checkpoint else "",
            error=contents.error if status == "ERROR" else "",
            notes=contents.notes,
            folder=name,
        )

    def _from_state(self, state: TrialState) -> Trial:
        log = ResultLog()
        status = _status(state, log, begun=False, live=self.live)
        return Trial(state.trial_id, status, flat(state.config), log)


def _status(state: TrialState | None, log: Reported, *, begun: bool, live: bool) -> str:
    """Tell a trial's status from the state and, where that is older than the folder, from the folder."""
    status = state.status if state else "PENDING"
    if status == "PENDING" and begun:  # the state was saved before the trial started
        status = "RUNNING"
    if log.done and status != "ERROR":
        status = "TERMINATED"
    return "INTERRUPTED" if not live and status in ("RUNNING", "PAUSED") else status
