"""Tune's loop, with a state on disk from which any instant can be continued.

Ray stages everything that the driver writes on the node's own disk and copies it to the storage path every ten
seconds or more, file by file. A killed driver then loses finished trials, and a kill during the copy leaves half a
state. Here results go straight to the storage path (:mod:`hpc_tune.runtime.results_log`) and the state of the search
is one file, ``state.zip``, replaced in one step as soon as a trial has ended.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import ray.tune.tune
from ray.train._internal.checkpoint_manager import _TrainingResult
from ray.tune import Checkpoint
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from hpc_tune.durable import replacing
from hpc_tune.errors import ExperimentError, Fault
from hpc_tune.experiment.nearest import did_you_mean
from hpc_tune.runtime.results_log import AUTOMATIC_KEYS, reported_results

__all__ = ["STATE_FILE", "SearchController", "Snapshots", "installed"]

STATE_FILE = "state.zip"
PREVIOUS_STATE_FILE = "state.prev.zip"

BUDGET = 0.03
"""Share of the driver's time that snapshots may take."""
ALLOWANCE = 1.0
"""Seconds of snapshots that are free, so that the first finished trials are saved at once."""
KEPT_WORKERS = 10_000

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


class SearchController(TuneController):
    """Ray's controller, extended where a search must survive its driver."""

    state_to_restore: Path | None = None
    expected: ClassVar[Mapping[str, str]] = {}
    """Names that every report must hold, by the key of the experiment file that asks for them."""
    fatal: ExperimentError | None = None
    unfinished = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._reported = False
        super().__init__(*args, **kwargs)

    def _create_checkpoint_manager(self) -> Snapshots:
        return Snapshots(self._storage, self.state_to_restore)

    def _set_trial_status(self, trial: Trial, status: str) -> None:
        super()._set_trial_status(trial, status)
        self._mark_trial_to_checkpoint(trial)  # Ray forgets it for a trial that ends while it is paused
        if status in (Trial.TERMINATED, Trial.ERROR, Trial.PAUSED):
            self._checkpoint_manager.urgent = True

    def add_trial(self, trial: Trial) -> None:
        """Let as many worker processes be kept for reuse as there are; a new one costs seconds."""
        super().add_trial(trial)
        if self._reuse_actors and not self._actor_cache.total_max_objects:
            self._actor_cache.increase_max(trial.placement_group_factory, by=KEPT_WORKERS)

    def _maybe_cache_trial_actor(self, trial: Trial) -> bool:
        """Keep the process of a trial that pauses for the trial that goes on.

        Once all trials have been suggested Ray keeps none, and a population whose members take turns starts a
        process at every turn.
        """
        worker = self._trial_to_actor[trial]
        if (
            not self._reuse_actors
            or worker not in self._started_actors
            or not (self._paused_trials or self._pending_trials)
        ):
            return bool(super()._maybe_cache_trial_actor(trial))
        if self._actor_manager.is_actor_failed(worker):
            return False
        if not self._actor_cache.cache_object(trial.placement_group_factory, worker):
            return False
        self._actor_to_trial.pop(self._trial_to_actor.pop(trial))
        trial.set_ray_actor(None)
        return True

    def _validate_result_metrics(self, result: dict[str, Any]) -> None:
        """Refuse, at the first report of the search, a metric or stop key that the trainable does not report."""
        reported = [key for key in result if key not in AUTOMATIC_KEYS and not key.startswith(("config/", "__"))]
        if self._reported or not reported:
            return
        self._reported = True
        missing = [(key, name) for key, name in self.expected.items() if name not in result]
        if missing:
            names = ", ".join(sorted(reported))
            faults = [
                Fault(key, f"{name!r} is not among {names}", did_you_mean(name, reported)) for key, name in missing
            ]
            error = ExperimentError("the trainable's first report", faults)
            type(self).fatal = error
            raise error

    def resume(self, resume_config: Any) -> None:
        """Lay the saved state out as a plain file, by which Ray restores, and clear it away again."""
        storage = Path(self._storage.experiment_fs_path)
        if self.state_to_restore is None:
            raise FileNotFoundError(storage / STATE_FILE)
        for plain in storage.glob("experiment_state-*.json"):  # left by an attempt that ended by itself
            plain.unlink()
        with zipfile.ZipFile(self.state_to_restore) as archive:
            newest = max(name for name in archive.namelist() if name.startswith("experiment_state-"))
            archive.extract(newest, storage)
        try:
            super().resume(resume_config)
        finally:
            (storage / newest).unlink()

    def _restore_trials(self, experiment_state: dict[str, Any]) -> list[Trial]:
        trials: list[Trial] = super()._restore_trials(experiment_state)
        for trial in trials:
            _catch_up(trial)
        return trials

    def cleanup(self) -> None:
        """Note what is left before Ray marks every live trial as terminated."""
        type(self).unfinished = not self.is_finished()
        super().cleanup()


def _catch_up(trial: Trial) -> None:
    """Bring a restored trial up to what its folder shows; the results on disk are newer than the state.

    A result is written only after its checkpoint is complete, so a checkpoint that a result names is whole.
    """
    folder = Path(trial.storage.trial_fs_path)
    results = list(reported_results(folder))
    last = results[-1] if results else None
    if last is None or trial.status in (Trial.TERMINATED, Trial.ERROR):
        return
    known = trial.latest_checkpoint_result
    iteration = known.metrics.get("training_iteration", 0) if known and Path(known.checkpoint.path).is_dir() else -1
    for result in results:
        if result.iteration > iteration and result.checkpoint is not None:
            trial.storage.current_checkpoint_index = int(result.checkpoint.name.rpartition("_")[2])
            trial.on_checkpoint(_TrainingResult(Checkpoint(str(result.checkpoint)), result.metrics))
    if last.done:
        trial.run_metadata.last_result = last.metrics
        trial.set_status(Trial.TERMINATED)


@contextmanager
def installed() -> Iterator[type[SearchController]]:
    """Have ``tune.run`` use this controller; it offers no parameter for it."""
    original = ray.tune.tune.TuneController
    ray.tune.tune.TuneController = SearchController
    try:
        yield SearchController
    finally:
        ray.tune.tune.TuneController = original
