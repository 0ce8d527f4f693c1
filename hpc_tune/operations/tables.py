"""The tables of a run, from what its trials left on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_tune.attempt import Attempt
from hpc_tune.progress import Progress
from hpc_tune.run import RunDir

if TYPE_CHECKING:
    from hpc_tune.results.tables import Tables

__all__ = ["Collected", "collect"]


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
    from hpc_tune.results.tables import SearchInfo, best_trial, read_tables, summarize, write_tables

    record = run.record()
    spec = record["spec"]
    attempts = run.attempts()
    info = SearchInfo(
        metric=spec["metric"],
        mode=spec["mode"],
        trial_cpus=spec["trial"]["cpus"],
        trial_gpus=_gpus_used(spec["trial"], attempts),
        live=run.lock.holder() is not None,
    )
    tables: Tables = read_tables(run.storage, info)
    summary = summarize(tables, info, run=run.name, wall_seconds=_wall_seconds(attempts), attempts=len(attempts))
    files = write_tables(run.path, tables, summary)
    row = {str(key): value for key, value in summary.iloc[0].to_dict().items()}
    return Collected(run, files, row, best_trial(tables.trials, info), tables.report.warning())


def _gpus_used(trial: dict[str, Any], attempts: Sequence[Attempt]) -> float:
    """Return the GPUs of a trial, which are none where they are optional and the machine had none."""
    records = [record for attempt in attempts if (record := attempt.record()) is not None]
    if trial["gpu_optional"] and not any(record.gpus for record in records):
        return 0.0
    return float(trial["gpus"])


def _wall_seconds(attempts: Sequence[Attempt]) -> float | None:
    spent = [progress.elapsed for attempt in attempts if (progress := Progress.read(attempt.progress_file))]
    return sum(spent) if spent else None
