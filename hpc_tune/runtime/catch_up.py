"""Trials that went on after the state of the search was saved: their folders tell how far."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.train._internal.checkpoint_manager import _TrainingResult
from ray.tune import Checkpoint
from ray.tune.experiment import Trial

from hpc_tune.runtime.results_log import Reported, reported_results

__all__ = ["catch_up"]


def catch_up(trial: Trial) -> bool:
    """Bring a restored trial up to what its folder shows; the results on disk are newer than the state.

    A result is written only after its checkpoint is complete, so a checkpoint that a result names is whole.

    Returns:
        Whether the trial had gone on since the state was saved.
    """
    folder = Path(trial.storage.trial_fs_path)
    results = list(reported_results(folder))
    checkpoints = trial.run_metadata.checkpoint_manager
    checkpoints._checkpoint_results = list(filter(_is_there, checkpoints._checkpoint_results))
    known = checkpoints.latest_checkpoint_result
    if known is not None and not _is_there(known):  # newer ones have taken its place
        checkpoints._latest_checkpoint_result = known = None
    reported = _place_of(trial.last_result, results)
    # The checkpoint of the last result that the state holds may have been on its way when the state was saved; one
    # taken over from another trial came after that result.
    first = 0
    if known is not None:
        first = max(0, reported if _is_of(folder, Path(known.checkpoint.path)) else reported + 1)
    for result in results[first:]:
        # to register one twice would have Tune delete it as the older of the two
        if result.checkpoint is not None and (known is None or result.checkpoint != Path(known.checkpoint.path)):
            trial.storage.current_checkpoint_index = int(result.checkpoint.name.rpartition("_")[2])
            trial.on_checkpoint(_TrainingResult(Checkpoint(str(result.checkpoint)), result.metrics))
    done = bool(results) and results[-1].done
    if done:
        trial.run_metadata.last_result = results[-1].metrics
        trial.set_status(Trial.TERMINATED)
    return done or len(results) > reported + 1


def _place_of(metrics: dict[str, Any], results: Sequence[Reported]) -> int:
    """Return where a result stands among those on disk, or -1."""
    keys = ("training_iteration", "time_total_s")
    wanted = [metrics.get(key) for key in keys]
    places = [place for place, each in enumerate(results) if [each.metrics.get(key) for key in keys] == wanted]
    return places[-1] if places else -1


def _is_there(result: _TrainingResult) -> bool:
    return Path(result.checkpoint.path).is_dir()


def _is_of(folder: Path, checkpoint: Path) -> bool:
    """Tell whether a trial made a checkpoint itself."""
    return checkpoint.parent == folder and checkpoint.name.startswith("checkpoint_")
