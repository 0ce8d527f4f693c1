"""What trials report, written to the storage path as it comes: ``params.json`` and ``result.json`` per trial.

Tune's own loggers write on the driver's disk and are copied later. These files are the record that everything
else follows: the tables, and after a kill the trials that go on from them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ray.tune import Callback, Checkpoint
from ray.tune.experiment import Trial
from ray.tune.result import AUTO_RESULT_KEYS
from ray.tune.utils.util import SafeFallbackEncoder

from hpc_tune.durable import replacing, write_text
from hpc_tune.runtime.trial_files import TrialFiles

__all__ = ["AUTOMATIC_KEYS", "Reported", "ResultsLog", "reported_results"]

AUTOMATIC_KEYS = frozenset({*AUTO_RESULT_KEYS, "trial_id", "experiment_tag", "done", "should_checkpoint"})
"""Keys that Tune adds to every result; whatever else is in one, the trainable reported."""

RESULTS_FILE = "result.json"
CHECKPOINTS_FILE = "checkpoints.json"
"""The checkpoints of a class by the results that they belong to, a line each."""
_NAME, _SIZE = "checkpoint_dir_name", "checkpoint_bytes"
_PLACE = ("training_iteration", "time_total_s")
"""What tells the results of a trial from each other."""


@dataclass(frozen=True)
class Reported:
    """One result as it stands in ``result.json``."""

    metrics: dict[str, Any]
    checkpoint: Path | None
    """The checkpoint that came with it, if it is still there."""

    @property
    def damaged(self) -> bool:
        """Whether files of the checkpoint cannot be read, or hold less than they did when it was written."""
        # more than was seen when it was new is fine: a shared file system may have shown some files late
        return self.checkpoint is not None and _readable_bytes(self.checkpoint) < self.metrics.get(_SIZE, 0)

    @property
    def iteration(self) -> int:
        """Tune's ``training_iteration``."""
        return int(self.metrics["training_iteration"])

    @property
    def done(self) -> bool:
        """Whether Tune ended the trial with this result."""
        return bool(self.metrics.get("done"))


class ResultsLog(Callback):
    """Writes each trial's config, results and error to its folder on the storage path."""

    def __init__(self, storage: Path) -> None:
        self._storage = storage
        self._files = TrialFiles(_open_for_append)
        self._configs: dict[str, str] = {}
        self.written: dict[str, int] = {}
        """How many results of each trial have been written, by its id."""

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Write the config; a trial that exploits another starts again with a new one."""
        config = json.dumps(trial.config, indent=2, cls=SafeFallbackEncoder)
        if self._configs.get(trial.trial_id) != config:
            self._folder(trial).mkdir(parents=True, exist_ok=True)
            write_text(self._folder(trial) / "params.json", config + "\n")
            self._configs[trial.trial_id] = config

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Append one line."""
        kept = {key: value for key, value in result.items() if key != "config"}
        if (name := kept.get(_NAME)) is not None:
            kept[_SIZE] = _readable_bytes(self._folder(trial) / name)
        line = json.dumps(kept, cls=SafeFallbackEncoder)
        self._files.append(self._log(trial), line.encode() + b"\n")
        self.written[trial.trial_id] = self.written.get(trial.trial_id, 0) + 1

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Checkpoint, **info: Any
    ) -> None:
        """Note the checkpoint of a class: it comes after the result that it belongs to, and which does not name it."""
        path, last = Path(checkpoint.path), trial.last_result
        if path.parent == self._folder(trial) and not last.get(_NAME):
            noted = {key: last.get(key) for key in _PLACE} | {_NAME: path.name, _SIZE: _readable_bytes(path)}
            self._files.append(path.parent / CHECKPOINTS_FILE, json.dumps(noted).encode() + b"\n")

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Close the trial's files."""
        self._close(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Keep the traceback, which Ray leaves on the driver's own disk."""
        self._close(trial)
        if trial.error_file and Path(trial.error_file).is_file():
            self._folder(trial).mkdir(parents=True, exist_ok=True)
            with replacing(self._folder(trial) / "error.txt") as file:
                file.write(Path(trial.error_file).read_bytes())

    on_trial_recover = on_trial_error

    def _folder(self, trial: Trial) -> Path:
        return self._storage / str(trial.trial_id)

    def _log(self, trial: Trial) -> Path:
        return self._folder(trial) / RESULTS_FILE

    def _close(self, trial: Trial) -> None:
        self._files.close(self._log(trial))
        self._files.close(self._folder(trial) / CHECKPOINTS_FILE)


def _open_for_append(path: Path) -> BinaryIO:
    """Open behind the last whole line: a killed driver may have left half of one."""
    file = path.open("a+b")
    if file.tell():
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file


def reported_results(folder: Path) -> Iterator[Reported]:
    """Yield the results in a trial's folder in the order they were written; half-written lines are passed over."""
    noted = {_place(line): line for line in _lines(folder / CHECKPOINTS_FILE)}
    for line in _lines(folder / RESULTS_FILE):
        metrics = line if line.get(_NAME) else line | noted.get(_place(line), {})
        name = metrics.get(_NAME)
        yield Reported(metrics, folder / name if name and (folder / name).is_dir() else None)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and "training_iteration" in value:
            yield value


def _place(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line.get(key) for key in _PLACE)


def _readable_bytes(checkpoint: Path) -> int:
    """Return the size of a checkpoint's files, of those that can be read."""
    size = 0
    for folder, _, names in os.walk(checkpoint):
        for name in names:
            try:
                with Path(folder, name).open("rb") as file:
                    if file.read(1):
                        size += os.fstat(file.fileno()).st_size
            except OSError:
                continue
    return size
