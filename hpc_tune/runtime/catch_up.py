"""Trials that went on after the state of the search was saved: their folders tell how far."""

from __future__ import annotations

from collections.abc import MutableMapping
from math import isclose
from pathlib import Path

from ray.train._internal.checkpoint_manager import _TrainingResult
from ray.tune import Checkpoint
from ray.tune.experiment import Trial

from hpc_tune.runtime.results_log import Reported, reported_results

__all__ = ["catch_up", "set_aside_damaged"]

NOTES_FILE = "notes.txt"
"""What happened to a trial, in its folder: a sentence per line, for its row in the tables."""


def set_aside_damaged(trial: Trial) -> None:
    """Rename the checkpoints that a trial could go on from if they were whole; its row says so.

    They may be its own or, after an exploit, another trial's.
    """
    folders = {Path(trial.storage.trial_fs_path)}
    if (known := trial.run_metadata.checkpoint_manager.latest_checkpoint_result) is not None:
        folders.add(Path(known.checkpoint.path).parent)
    for folder in folders:
        for checkpoint in {each.checkpoint for each in reported_results(folder) if each.damaged}:
            assert checkpoint is not None
            checkpoint.rename(checkpoint.with_name(f"damaged_{checkpoint.name}"))
            with (folder / NOTES_FILE).open("a", encoding="utf-8") as notes:
                notes.write(f"{checkpoint.name} was damaged: the trial went on from what came before it\n")


def catch_up(trial: Trial, written: MutableMapping[str, int]) -> bool:
    """Bring a restored trial up to what its folder shows; the results on disk are newer than the state.

    A result is written only after its checkpoint is complete, so a checkpoint that a result names is whole.

    Args:
        trial: the trial as the state knows it.
        written: how many results of each trial had been written when the state was saved; brought up to date, too.
            A trial's last result would not tell: after an exploit that is another trial's.

    Returns:
        Whether the trial had gone on since the state was saved.
    """
    folder = Path(trial.storage.trial_fs_path)
    results = list(reported_results(folder))
    checkpoints = trial.run_metadata.checkpoint_manager
    checkpoints._checkpoint_results = list(filter(_is_there, checkpoints._checkpoint_results))
    known = checkpoints.latest_checkpoint_result
    if known is not None and not _is_there(known):  # newer ones have taken its place, or it was damaged
        checkpoints._latest_checkpoint_result = known = None
        checkpoints._checkpoint_results = [
            each for each in checkpoints._checkpoint_results if not _is_of(folder, Path(each.checkpoint.path))
        ]
    known_results = min(written.get(trial.trial_id, 0), len(results))
    written[trial.trial_id] = len(results)
    # The checkpoint of the last result that the state holds may have been on its way when the state was saved; but
    # one that was taken over from another trial may have come after that result.
    first = known_results if known is not None else 0
    if first and (_is_of(folder, Path(known.checkpoint.path)) or _began_from(known, results[first - 1])):
        first -= 1
    registered = {Path(each.checkpoint.path) for each in checkpoints._checkpoint_results}
    for result in results[first:]:
        # to register one twice would have Tune delete it as the older of the two
        if result.checkpoint is not None and result.checkpoint not in registered:
            trial.storage.current_checkpoint_index = _number(result.checkpoint.name)
            trial.on_checkpoint(_TrainingResult(Checkpoint(str(result.checkpoint)), result.metrics))
    names = [name for each in results if (name := each.metrics.get("checkpoint_dir_name"))]
    # no name is given twice, since a result names its checkpoint
    trial.storage.current_checkpoint_index = max([trial.storage.current_checkpoint_index, *map(_number, names)])
    done = bool(results) and results[-1].done
    went_on = done or len(results) > known_results
    if went_on:
        trial.run_metadata.last_result = results[-1].metrics
    if done:
        trial.set_status(Trial.TERMINATED)
    return went_on


def _began_from(checkpoint: _TrainingResult, result: Reported) -> bool:
    """Tell whether a trial's process had begun with a checkpoint when it reported a result."""
    iteration = result.iteration - result.metrics.get("iterations_since_restore", 0)
    seconds = result.metrics.get("time_total_s", 0.0) - result.metrics.get("time_since_restore", 0.0)
    begin = checkpoint.metrics
    return iteration == begin.get("training_iteration") and isclose(
        seconds, begin.get("time_total_s", 0.0), abs_tol=1e-3
    )


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])


def _is_there(result: _TrainingResult) -> bool:
    return Path(result.checkpoint.path).is_dir()


def _is_of(folder: Path, checkpoint: Path) -> bool:
    """Tell whether a trial made a checkpoint itself."""
    return checkpoint.parent == folder and checkpoint.name.startswith("checkpoint_")
