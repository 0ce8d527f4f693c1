"""The state of a search on disk: one file, ``state.zip``, replaced in one step."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial

from hpc_tune.durable import replacing
from hpc_tune.errors import RunError

__all__ = ["PREVIOUS_STATE_FILE", "STATE_FILE", "Snapshots", "begin_anew", "saved_state", "set_aside_unknown"]

STATE_FILE = "state.zip"
PREVIOUS_STATE_FILE = "state.prev.zip"

BUDGET = 0.02
"""Share of the driver's time that snapshots may take."""
ALLOWANCE = 0.3
"""Seconds of snapshots that are free, so that the first finished trials are saved at once."""

LONGEST_PERIOD = 10.0
"""Seconds after which running trials' progress is saved when no trial has ended."""


class Snapshots:
    """When and how the state of the search is saved; stands in for Ray's experiment checkpoint manager."""

    auto_checkpoint_enabled = False

    def __init__(
        self, context: Any, state_to_restore: Path | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._context = context
        self._state_to_restore = state_to_restore
        self._storage = Path(context.experiment_fs_path)
        self._clock = clock
        self._begin = self._last = clock()
        self._spent = 0.0
        self.urgent = False

    @property
    def _staging(self) -> Path:
        """Where Ray writes the state; a restore moves it to where the first attempt had it."""
        return Path(self._context.experiment_driver_staging_path)

    def sync_up_experiment_state(self, save_fn: Callable[[], None], force: bool = False, wait: bool = False) -> None:
        """Save the state if something demands it and the budget allows; Ray calls this after every event."""
        if not (force or self._due()):
            return
        begin = self._clock()
        save_fn()
        self._write()
        self._last = self._clock()
        self._spent += self._last - begin
        self.urgent = False
        if force and wait:
            self._leave_plain_state()

    def _due(self) -> bool:
        now = self._clock()
        if not self.urgent and now - self._last < LONGEST_PERIOD:
            return False
        return self._spent <= ALLOWANCE + BUDGET * (now - self._begin)

    def _write(self) -> None:
        state = self._storage / STATE_FILE
        with replacing(state) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for staged in sorted(self._staging.iterdir()):
                if staged.is_file() and not staged.name.startswith("tmp-"):
                    archive.write(staged, staged.name)
            _keep_previous(state, self._storage / PREVIOUS_STATE_FILE)

    def _leave_plain_state(self) -> None:
        """Leave the final state and PBT's logs also as plain files, as Ray's own tools look for them."""
        newest = max(self._staging.glob("experiment_state-*.json"))
        for staged in (newest, *self._staging.glob("pbt_*.txt")):
            with replacing(self._storage / staged.name) as file:
                file.write(staged.read_bytes())

    def sync_down_experiment_state(self) -> None:
        """Put the state of searcher and callbacks where Ray restores them from."""
        if self._state_to_restore is None:
            return
        self._staging.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(self._state_to_restore) as archive:
            others = [name for name in archive.namelist() if not name.startswith("experiment_state-")]
            archive.extractall(self._staging, others)

    def forget_restored(self) -> None:
        """Clear away what was restored, which bears the time stamp of its attempt; PBT's logs go on growing."""
        for staged in self._staging.iterdir():
            if staged.is_file() and not staged.name.startswith("pbt_"):
                staged.unlink()

    def on_trial_checkpoint(self, trial: Trial) -> None:
        """Do nothing: a restore finds checkpoints that are newer than the state in the trial's results."""


def _keep_previous(state: Path, previous: Path) -> None:
    """Keep the state that is about to be replaced; a hard link costs no copy."""
    if state.exists():
        beside = previous.with_suffix(".link")
        beside.unlink(missing_ok=True)
        beside.hardlink_to(state)
        beside.replace(previous)


def saved_state(storage: Path) -> Path | None:
    """Return the newest state that is whole, or None when a search has to begin anew."""
    for name in (STATE_FILE, PREVIOUS_STATE_FILE):
        try:
            with zipfile.ZipFile(storage / name) as archive:
                if archive.testzip() is None:
                    return storage / name
        except (FileNotFoundError, zipfile.BadZipFile):
            continue
    return None


def begin_anew(storage: Path) -> list[str]:
    """Make way for a search that has no state to go on from.

    Returns:
        Notes for its owner.

    Raises:
        RunError: if there were two states and none is whole: it was far, and would be done again.
    """
    if (storage / PREVIOUS_STATE_FILE).exists():
        raise RunError(
            f"the state of the search is damaged: {storage / STATE_FILE}, and {PREVIOUS_STATE_FILE} beside it",
            hint="the results so far stay in trials.csv; put one of the two back from a copy, or begin a new run",
        )
    if not (count := set_aside_unknown(storage, known=())):
        return []
    trials = "1 trial" if count == 1 else f"{count} trials"
    return [f"the search has no whole state on disk: it began anew; what was left of {trials} is in set_aside/"]


def set_aside_unknown(storage: Path, known: Container[str]) -> int:
    """Move away trials of which a search knows nothing, since the state that knew them is damaged.

    They had just begun. The searcher does not know that it has suggested them, and suggests as many as are wanted.

    Returns:
        How many there were.
    """
    count = 0
    for config in storage.glob("*/params.json"):
        folder = config.parent
        if folder.name not in known:
            aside = storage.parent / "set_aside"
            aside.mkdir(mode=0o700, exist_ok=True)
            folder.rename(aside / f"{folder.name}-{time.time_ns()}")
            count += 1
    return count
