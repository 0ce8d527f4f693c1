"""The tables of a run, from what its trials left on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_tune.attempt import Attempt
from hpc_tune.progress import Progress
from hpc_tune.run import RunDir

if TYPE_CHECKING:
    from pandas import DataFrame

    from hpc_tune.results.checkpoints import Checkpoint
    from hpc_tune.results.tables import Reading, SearchInfo, Tables

__all__ = ["Collected", "Gathered", "collect", "gather"]


@dataclass(frozen=True)
class Gathered:
    """What the files of a run say, as tables; nothing is written yet."""

    run: RunDir
    record: Mapping[str, Any]
    attempts: Sequence[Attempt]
    info: SearchInfo
    tables: Tables
    row: dict[str, Any]
    """The one row of ``summary.csv``."""

    @cached_property
    def summary(self) -> DataFrame:
        """The same for pandas."""
        from hpc_tune.results.tables import frame

        return frame({name: [value] for name, value in self.row.items()})

    @cached_property
    def best(self) -> dict[str, Any] | None:
        """The best trial's row of ``trials.csv``."""
        from hpc_tune.results.tables import best_trial

        return best_trial(self.tables.trials, self.info)

    @cached_property
    def best_checkpoint(self) -> Checkpoint | None:
        """The best trial's checkpoint with the best value of those that are still there."""
        return None if self.best is None else self.checkpoint_of(self.best)

    def checkpoint_of(self, row: Mapping[str, Any]) -> Checkpoint | None:
        """Return the same of the trial that a row of ``trials.csv`` stands for."""
        from hpc_tune.results.checkpoints import best_checkpoint

        newest = self.run.path / row["checkpoint"] if row["checkpoint"] else None
        folder = newest.parent if newest else self.run.storage / row["trial_id"]
        return best_checkpoint(folder, newest, self.info.metric, self.info.mode)

    def write(self) -> list[Path]:
        """Write the tables.

        Raises:
            RunError: if they cannot be written; older tables are untouched then.
        """
        from hpc_tune.results.csvfiles import write_tables

        return write_tables(self.run.path, self.tables.reading, self.row)


@dataclass(frozen=True)
class Collected:
    """The tables of a run as they were written."""

    run: RunDir
    files: list[Path]
    summary: dict[str, Any]
    """The one row of ``summary.csv``."""
    best: dict[str, Any] | None
    """The best trial's row of ``trials.csv``."""
    warning: str | None


def collect(run: RunDir) -> Collected:
    """Write the tables of a run from what its trials left on disk; the run may be live.

    Raises:
        RunError: if they cannot be written; older tables are untouched then.
    """
    from hpc_tune.results.collecting import Collecting
    from hpc_tune.results.tables import best_trial

    attempts = run.attempts()
    info = _info(run, run.record(), attempts)
    collecting = Collecting(run.path, run.storage, info)
    reading = collecting.reading
    row = _summary(run, reading, info, attempts)
    files = collecting.write(row)
    return Collected(run, files, row, best_trial(reading.columns, info), reading.report.warning())


def gather(run: RunDir) -> Gathered:
    """Read what a run's trials left on disk into tables; the run may be live.

    Raises:
        RunError: if the run record or the storage path cannot be read.
    """
    from hpc_tune.results.tables import read_tables

    record, attempts = run.record(), run.attempts()
    info = _info(run, record, attempts)
    tables = read_tables(run.storage, info)
    return Gathered(run, record, attempts, info, tables, _summary(run, tables.reading, info, attempts))


def _info(run: RunDir, record: Mapping[str, Any], attempts: Sequence[Attempt]) -> SearchInfo:
    from hpc_tune.results.tables import SearchInfo

    spec = record["spec"]
    return SearchInfo(
        metric=spec["metric"],
        mode=spec["mode"],
        trial_cpus=spec["trial"]["cpus"],
        trial_gpus=_gpus_used(spec["trial"], attempts),
        live=run.lock.holder() is not None,
    )


def _summary(run: RunDir, reading: Reading, info: SearchInfo, attempts: Sequence[Attempt]) -> dict[str, Any]:
    from hpc_tune.results.tables import summarize

    return summarize(reading, info, run=run.name, wall_seconds=_wall_seconds(attempts), attempts=len(attempts))


def _gpus_used(trial: dict[str, Any], attempts: Sequence[Attempt]) -> float:
    """Return the GPUs of a trial, which are none where they are optional and the machine had none."""
    records = [record for attempt in attempts if (record := attempt.record()) is not None]
    if trial["gpu_optional"] and not any(record.gpus for record in records):
        return 0.0
    return float(trial["gpus"])


def _wall_seconds(attempts: Sequence[Attempt]) -> float | None:
    spent = [progress.elapsed for attempt in attempts if (progress := Progress.read(attempt.progress_file))]
    return sum(spent) if spent else None
