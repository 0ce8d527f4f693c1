"""The best trial of a run: its config, its checkpoint, and a copy of both to take away."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_tune.durable import replacing, write_json, write_text
from hpc_tune.errors import RunError, UsageError
from hpc_tune.operations.logs import find_trial
from hpc_tune.operations.tables import Gathered, gather
from hpc_tune.run import RunDir

if TYPE_CHECKING:
    from hpc_tune.results.checkpoints import Checkpoint

__all__ = ["BestTrial", "best", "export"]

_ARCHIVES = {".tar": "w", ".tgz": "w:gz", ".gz": "w:gz"}


@dataclass(frozen=True)
class BestTrial:
    """The best trial of a run, or another one that was chosen."""

    run: RunDir
    record: Mapping[str, Any]
    """The run record."""
    metric: str
    mode: str
    trial_id: str
    value: float
    iteration: int
    status: str
    config: Mapping[str, Any]
    """As the trainable got it."""
    checkpoint: Checkpoint | None
    """The one with the best value of those that are still there."""

    @property
    def toml(self) -> str:
        """The config as constants for ``[space]`` of an experiment file."""
        from hpc_tune.results.toml import as_toml

        return as_toml(self.config)

    @property
    def provenance(self) -> dict[str, Any]:
        """Where it comes from: run, trial, versions, spec hash."""
        kept = ("name", "created", "user", "host", "versions", "seed", "spec_hash", "spec")
        return {
            "run": self.run.name,
            "trial": self.trial_id,
            "metric": self.metric,
            "mode": self.mode,
            "best_value": self.value,
            "best_iteration": self.iteration,
            "checkpoint": self.checkpoint.path.name if self.checkpoint else None,
            "checkpoint_value": self.checkpoint.value if self.checkpoint else None,
            "checkpoint_iteration": self.checkpoint.iteration if self.checkpoint else None,
            **{key: self.record.get(key) for key in kept},
        }


def best(run: RunDir, trial: str | None = None) -> BestTrial:
    """Return the best trial of a run, which may be live, or what is the same of another trial.

    Args:
        run: the run.
        trial: a trial's id, the beginning of it, or its number; None: the best.

    Raises:
        RunError: if it, or no trial at all, has reported the metric yet.
        UsageError: if there is no such trial, or several.
    """
    from hpc_tune.results.checkpoints import trial_config
    from hpc_tune.results.toml import nested

    gathered = gather(run)
    info = gathered.info
    row = gathered.best if trial is None else _row(gathered, find_trial(run.storage, trial))
    if row is None:
        some = "no trial of {} has reported {} yet, as a number"
        said = some if trial is None else f"trial {trial} of {{}} has not reported {{}} as a number"
        raise RunError(
            said.format(run.name, info.metric),
            hint=f"see how it stands: hpc-tune status {run.name}",
        )
    newest = run.path / row["checkpoint"] if row["checkpoint"] else None
    folder = newest.parent if newest else run.storage / row["trial_id"]
    flat = {key.removeprefix("config/"): value for key, value in row.items() if key.startswith("config/")}
    return BestTrial(
        run=run,
        record=gathered.record,
        metric=info.metric,
        mode=info.mode,
        trial_id=row["trial_id"],
        value=float(row["best_value"]),
        iteration=int(row["best_iteration"]),
        status=row["status"],
        config=trial_config(folder) or nested(flat),
        checkpoint=gathered.checkpoint_of(row),
    )


def _row(gathered: Gathered, trial_id: str) -> dict[str, Any] | None:
    """Return a trial's row of ``trials.csv``; None where it has no value."""
    from hpc_tune.results.tables import best_trial

    trials = gathered.tables.trials
    return best_trial(trials[trials["trial_id"] == trial_id].reset_index(drop=True), gathered.info)


def export(found: BestTrial, target: Path) -> None:
    """Copy the best checkpoint with its config and provenance, to a tar file or, with any other ending, a directory.

    ``checkpoint/`` holds the checkpoint's files, ``config.json`` and ``config.toml`` the config, ``provenance.json``
    where they come from.

    Raises:
        UsageError: if the target exists.
        RunError: if there is no checkpoint, or it cannot be copied; nothing is left at the target then.
    """
    if found.checkpoint is None:
        raise RunError(
            f"trial {found.trial_id} of {found.run.name} has left no checkpoint",
            hint='have the trainable report one, see "should_checkpoint" in the README; for the config alone: --toml',
        )
    if target.exists():
        raise UsageError(f"{target} exists already", hint="choose another name, or remove it first")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _export(found, found.checkpoint.path, target)
    except OSError as error:
        raise RunError(f"cannot copy {found.checkpoint.path} to {target}: {error}") from error


def _export(found: BestTrial, checkpoint: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp") as beside:
        folder = Path(beside, target.name.partition(".")[0] or "best")
        folder.mkdir()
        write_json(folder / "config.json", found.config)
        write_text(folder / "config.toml", found.toml)
        write_json(folder / "provenance.json", found.provenance)
        if target.suffix not in _ARCHIVES:
            shutil.copytree(checkpoint, folder / "checkpoint")
            folder.rename(target)
            return
        with replacing(target) as file, tarfile.open(fileobj=file, mode=_ARCHIVES[target.suffix]) as archive:  # type: ignore[call-overload]
            archive.add(folder, folder.name)
            archive.add(checkpoint, f"{folder.name}/checkpoint")
