"""Tune's loop, with a state on disk from which any instant can be continued.

Ray stages everything that the driver writes on the node's own disk and copies it to the storage path every ten
seconds or more, file by file. A killed driver then loses finished trials, and a kill during the copy leaves half a
state. Here results go straight to the storage path (:mod:`hpc_tune.runtime.results_log`) and the state of the search
is one file, ``state.zip``, replaced in one step as soon as a trial has ended. No trial starts, or goes on with another
config, before that file knows of it; so whatever lies in the trials' folders belongs to a trial that a restore knows.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import ray.tune.tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.utils import flatten_dict

from hpc_tune.attempt import LEAST_FREE
from hpc_tune.errors import ExperimentError, Fault
from hpc_tune.experiment.nearest import did_you_mean
from hpc_tune.runtime.catch_up import catch_up, set_aside_damaged
from hpc_tune.runtime.more_samples import extend
from hpc_tune.runtime.node_loss import forgive_lost_node
from hpc_tune.runtime.results_log import AUTOMATIC_KEYS
from hpc_tune.runtime.scheduler_state import load_scheduler, save_scheduler
from hpc_tune.runtime.snapshots import PREVIOUS_STATE_FILE, STATE_FILE, Snapshots, set_aside_unknown
from hpc_tune.runtime.stopping import GracefulStop, end_tune
from hpc_tune.runtime.trial_schedulers import Population

__all__ = ["SearchController", "installed"]

SCHEDULER_FILE = "trial_scheduler.pkl"
WRITTEN_FILE = "written.json"
"""How many results of each trial had been written when the state was saved."""
KEPT_WORKERS = 10_000


class _Queue:
    """The trials that a kept process may go to, first in, first out, those without one first.

    Ray draws one from a set.
    """

    def __init__(self, has_process: Callable[[Trial], bool]) -> None:
        self._trials: dict[Trial, None] = {}
        self._has_process = has_process

    def add(self, trial: Trial) -> None:
        self._trials[trial] = None

    def discard(self, trial: Trial) -> None:
        self._trials.pop(trial, None)

    def pop(self) -> Trial:
        first = next((trial for trial in self._trials if not self._has_process(trial)), next(iter(self._trials)))
        del self._trials[first]
        return first

    def __len__(self) -> int:
        return len(self._trials)


class SearchController(TuneController):
    """Ray's controller, extended where a search must survive its driver."""

    state_to_restore: Path | None = None
    expected: ClassVar[Mapping[str, str]] = {}
    """Names that every report must hold, by the key of the experiment file that asks for them."""
    slots: int = 1
    """Trials that can run at the same time."""
    num_samples: int = 1
    graceful_stop: GracefulStop | None = None
    written: ClassVar[dict[str, int]] = {}
    """How many results of each trial have been written, by its id; that of the results' log."""
    fatal: ExperimentError | None = None
    unfinished = False

    _max_pending_trials: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._reported = False
        self._saved_configs: dict[str, dict[str, Any]] = {}
        super().__init__(*args, **kwargs)

    def _create_checkpoint_manager(self) -> Snapshots:
        return Snapshots(self._storage, self.state_to_restore)

    def step(self) -> None:
        """Let the search go on by an event, and end it once there is nothing left to wait for."""
        super().step()
        if self.graceful_stop is not None and self.graceful_stop.is_due(self._live_trials):
            end_tune()

    def save_to_dir(self) -> None:
        """Write the state, with that of the trial scheduler, where a snapshot is made of it."""
        super().save_to_dir()
        staging = Path(self._storage.experiment_driver_staging_path)
        save_scheduler(self._scheduler_alg, staging / SCHEDULER_FILE)
        (staging / WRITTEN_FILE).write_text(json.dumps(self.written), encoding="utf-8")
        self._saved_configs = {trial.trial_id: trial.config for trial in self._trials}

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        """Save the state, once there is one: Ray cannot restore a search without trials."""
        if self._trials:
            super().checkpoint(force=force, wait=wait)

    def _maybe_add_actors(self) -> None:
        """Ask for processes for the trials that come next.

        The first trials are saved before that: their ids depend on chance. Tune asks for a process for each of up
        to 200 pending trials, and takes most requests back when a process is free again, which costs more than an
        empty trial. One request too many finds out when the cluster has grown.
        """
        if self._is_stopping():
            return  # nobody would wait for what begins now
        if not self._saved_configs:
            self.checkpoint(force=True)
        most, self._max_pending_trials = (
            self._max_pending_trials,
            max(1, self.slots - self._actor_manager.num_live_actors),
        )
        try:
            super()._maybe_add_actors()
        finally:
            self._max_pending_trials = most

    def _actor_started(self, tracked_actor: Any, log: str = "STARTED") -> None:
        """Start no trial that the state on disk does not know as it is."""
        if self._is_stopping():
            return
        trial = self._actor_to_trial[tracked_actor]
        if self._saved_configs.get(trial.trial_id) is not trial.config:
            self.checkpoint(force=True)
        super()._actor_started(tracked_actor, log=log)

    def _set_trial_status(self, trial: Trial, status: str) -> None:
        super()._set_trial_status(trial, status)
        self._mark_trial_to_checkpoint(trial)  # Ray forgets it for a trial that ends while it is paused
        if status in (Trial.TERMINATED, Trial.ERROR, Trial.PAUSED):
            self._checkpoint_manager.urgent = True

    def _schedule_trial_pause(self, trial: Trial, should_checkpoint: bool = True) -> None:
        """Pause a trial, and forget what was to become of it after a save that nobody waits for any more.

        A population replaces a member whose checkpoint may be on its way. Ray stops the member to pause it, and notes
        the stop for when the checkpoint has come; the member would end with its next checkpoint instead.
        """
        super()._schedule_trial_pause(trial, should_checkpoint=should_checkpoint)
        if not should_checkpoint:
            self._cached_trial_decisions.pop(trial.trial_id, None)

    def _process_trial_failure(self, trial: Trial, exception: Any) -> None:
        """Start a trial that died with its node again from its checkpoint, without charging it a failure.

        On a full disk no trial can go on, and none is to blame: the search ends as it is.
        """
        if (full := self._full_disk(exception)) is not None:
            raise OSError(full, os.strerror(full), self._storage.experiment_fs_path)
        forgiven = forgive_lost_node(exception, trial.temporary_state.location.hostname, self._is_stopping)
        self._resetting_trials.discard(trial)  # Ray forgets it, and would wait for the reset for ever
        if forgiven and trial.status == Trial.PENDING:  # in a kept process; Ray recovers only what it calls running
            self._set_trial_status(trial, Trial.RUNNING)
            if trial in self._staged_trials:
                self._unstage_trial_with_resources(trial)
        super()._process_trial_failure(trial, exception=exception)

    def _is_stopping(self) -> bool:
        return self.graceful_stop is not None and self.graceful_stop.requested

    def _full_disk(self, exception: Any) -> int | None:
        """Return the errno of a trial that could not write to the storage path; what Ray hands on has lost it."""
        storage, said = self._storage.experiment_fs_path, str(exception)
        for number in (errno.EDQUOT, errno.ENOSPC):
            if f"[Errno {number}]" in said and (storage in said or shutil.disk_usage(storage).free < LEAST_FREE):
                return number
        return None

    def add_trial(self, trial: Trial) -> None:
        """Let as many worker processes be kept for reuse as there are; a new one costs seconds."""
        self._resources_to_pending_trials.default_factory = lambda: _Queue(self._has_process)
        super().add_trial(trial)
        trial.init_local_path()  # Ray forgets it for a trial that begins in a kept process
        if self._reuse_actors and not self._actor_cache.total_max_objects:
            self._actor_cache.increase_max(trial.placement_group_factory, by=KEPT_WORKERS)

    def _maybe_reuse_cached_actor(self, trial: Trial) -> bool:
        """Give a kept process to a trial that has none.

        One whose own process is starting would give it up. Where trials are shorter than that start, each process on
        its way is given up so, and all slots but the first stay empty to the end of the search.
        """
        if (
            trial not in self._resetting_trials
            and self._has_process(trial)
            and not all(self._has_process(other) for other in self._pending_trials)
        ):
            return False
        return bool(super()._maybe_reuse_cached_actor(trial))

    def _has_process(self, trial: Trial) -> bool:
        worker = self._trial_to_actor.get(trial)
        return worker is not None and self._actor_manager.is_actor_started(worker)

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
        """Restore, or fail: Ray would begin anew beside what it could not restore."""
        try:
            self._restore(resume_config)
        except Exception:
            self._fail_fast = True
            raise

    def _restore(self, resume_config: Any) -> None:
        """Lay the saved state out as a plain file, by which Ray restores, and clear it away again."""
        storage = Path(self._storage.experiment_fs_path)
        if self.state_to_restore is None:
            raise FileNotFoundError(storage / STATE_FILE)
        for plain in storage.glob("experiment_state-*.json"):  # left by an attempt that ended by itself
            plain.unlink()
        with zipfile.ZipFile(self.state_to_restore) as archive:
            newest = max(name for name in archive.namelist() if name.startswith("experiment_state-"))
            archive.extract(newest, storage)
            self.written.update(json.loads(archive.read(WRITTEN_FILE)))
        try:
            super().resume(resume_config)
        finally:
            (storage / newest).unlink()
        if self.state_to_restore.name == PREVIOUS_STATE_FILE:
            set_aside_unknown(storage, {trial.trial_id for trial in self._trials})
        extend(self._search_alg, self.num_samples)
        self._resume_scheduler()
        for trial in self._ended_unnoticed:
            result = flatten_dict(trial.last_result)
            self._scheduler_alg.on_trial_complete(self._wrapped(), trial, result)
            self._search_alg.on_trial_complete(trial.trial_id, result=result)
        self._checkpoint_manager.forget_restored()

    def _restore_trials(self, experiment_state: dict[str, Any]) -> list[Trial]:
        trials: list[Trial] = super()._restore_trials(experiment_state)
        unfinished = [trial for trial in trials if not trial.is_finished()]
        for trial in unfinished:
            set_aside_damaged(trial)
        went_on = [trial for trial in unfinished if catch_up(trial, self.written)]
        self._ended_unnoticed = [trial for trial in went_on if trial.is_finished()]
        self._went_on = [trial for trial in went_on if not trial.is_finished()]
        self._as_saved = [trial for trial in unfinished if trial not in went_on]
        self._waiting = [trial for trial in unfinished if trial.status == Trial.PAUSED and trial not in went_on]
        return trials

    def _resume_scheduler(self) -> None:
        """Give the trial scheduler its state back; trials that it had paused wait for its word again."""
        staged = Path(self._storage.experiment_driver_staging_path, SCHEDULER_FILE)
        if not staged.exists():
            return
        with staged.open("rb") as file:
            load_scheduler(self._scheduler_alg, file, self._trials)
        if isinstance(self._scheduler_alg, Population):
            missed = ((trial, flatten_dict(trial.last_result)) for trial in self._went_on)
            self._waiting += [trial for trial, result in missed if self._scheduler_alg.has_missed(trial, result)]
            self._waiting += [trial for trial in self._as_saved if self._scheduler_alg.waits(trial)]
        for trial in self._waiting:
            self._set_trial_status(trial, Trial.PAUSED)

    def cleanup(self) -> None:
        """Note what is left before Ray marks every live trial as terminated."""
        type(self).unfinished = not self.is_finished()
        super().cleanup()


class _Analysis:
    """What ``tune.run`` returns: the trials alone. Ray's own reads all that they have ever reported."""

    def __init__(self, *, trials: list[Trial], **_: Any) -> None:
        self.trials = trials


@contextmanager
def installed() -> Iterator[type[SearchController]]:
    """Have ``tune.run`` use this controller; it offers no parameter for it."""
    tune = ray.tune.tune
    original = tune.TuneController, tune.ExperimentAnalysis
    tune.TuneController, tune.ExperimentAnalysis = SearchController, _Analysis
    try:
        yield SearchController
    finally:
        tune.TuneController, tune.ExperimentAnalysis = original
