"""Trial schedulers of Ray Tune, changed where a search would hang or its state would swell."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.train._internal.checkpoint_manager import _TrainingResult
from ray.tune import Checkpoint
from ray.tune.experiment import Trial
from ray.tune.result import TRAINING_ITERATION
from ray.tune.schedulers import FIFOScheduler, MedianStoppingRule, PopulationBasedTraining, TrialScheduler
from ray.tune.trainable import FunctionTrainable
from ray.tune.utils import merge_dicts

__all__ = ["MedianStopping", "Population", "Replay"]

CLONES = "clone-"


class MedianStopping(MedianStoppingRule):
    """Ray's median stopping rule, changed in two ways.

    It remembers of each result what it compares; Ray keeps them whole. And while there is too little to compare with,
    it has a trial make way for others only if that costs nothing: Ray's would have one that saved nothing with this
    report begin anew, every time.
    """

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide on a trial from its newest result."""
        decision = super().on_trial_result(tune_controller, trial, self._compared(result))
        makes_way = decision == TrialScheduler.PAUSE and trial not in self._stopped_trials
        if makes_way and not _goes_on_from(trial, result):
            return str(TrialScheduler.CONTINUE)
        return str(decision)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Remember a trial's last result."""
        super().on_trial_complete(tune_controller, trial, self._compared(result))

    def _compared(self, result: dict[str, Any]) -> dict[str, Any]:
        return {key: result[key] for key in (self._time_attr, self._metric) if key in result}


class Population(PopulationBasedTraining):
    """A population whose members neither wait for the dead nor lose the checkpoint that they are to go on from.

    In Ray's synchronous mode the report of the last member wakes the others. When that member fails instead, they
    wait for ever. And a member that takes over another's checkpoint may get its turn after the other has deleted it.
    """

    _next_perturbation_sync: float

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Take a new member in; Ray's warning to keep more checkpoints does not apply here."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*num_to_keep")
            super().on_trial_add(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Choose who goes on; when all that are left wait for each other, perturb first."""
        chosen = super().choose_trial_to_run(tune_controller)
        if chosen is None and self._synch and _all_wait(tune_controller):
            self._perturb(tune_controller)
            chosen = super().choose_trial_to_run(tune_controller)
        return chosen

    def has_missed(self, trial: Trial, result: dict[str, Any]) -> bool:
        """Take note of a restored member's last result, which came after the state was saved.

        Returns:
            Whether the member is where it has to wait for the others.
        """
        if not self._synch or self._time_attr not in result or self._metric not in result:
            return False
        state, now = self._trial_state[trial], result[self._time_attr]
        if now < self._burn_in_period or now - state.last_perturbation_time < self._perturbation_interval:
            return False
        self._save_trial_state(state, now, result, trial)
        return self.waits(trial)

    def waits(self, trial: Trial) -> bool:
        """Tell whether a member is where it has to wait for the others, whether or not it had come to rest there."""
        return bool(self._synch and self._trial_state[trial].last_train_time >= self._next_perturbation_sync)

    def _perturb(self, tune_controller: Any) -> None:
        """Do what Ray does when the last member reports."""
        lower, upper = self._quantiles()
        members = [trial for trial in tune_controller.get_trials() if not trial.is_finished()]
        now = max(self._trial_state[member].last_train_time for member in members)
        others = [member for member in members if member not in lower and member not in upper]
        for member in [*upper, *others, *lower]:  # the strong first: the weak take over their checkpoints
            self._trial_state[member].last_perturbation_time = now
            self._checkpoint_or_exploit(member, tune_controller, upper, lower)
        self._next_perturbation_sync = max(self._next_perturbation_sync, now) + self._perturbation_interval

    def _exploit(self, tune_controller: Any, trial: Trial, trial_to_clone: Trial) -> None:
        """Give a member another's checkpoint to keep; hard links, which take no room."""
        strong = self._trial_state[trial_to_clone]
        if not Path(strong.last_checkpoint.path).is_dir():  # deleted since, in favour of newer ones
            newest = trial_to_clone.latest_checkpoint_result
            if newest is None or not Path(newest.checkpoint.path).is_dir():
                return
            strong.last_checkpoint, strong.last_result = newest.checkpoint, newest.metrics
        own = _clone(Path(strong.last_checkpoint.path), Path(trial.storage.trial_fs_path))
        _register_newest(trial, self._trial_state[trial].last_result)
        super()._exploit(tune_controller, trial, trial_to_clone)
        trial.run_metadata.checkpoint_manager._latest_checkpoint_result = _TrainingResult(
            checkpoint=Checkpoint(str(own)), metrics=strong.last_result
        )

    def _log_config_on_step(self, member: Any, strong: Any, trial: Trial, trial_to_clone: Trial, config: Any) -> None:
        """Log an exploit with the iterations of both checkpoints; those that Tune knows may be older or newer."""
        super()._log_config_on_step(member, strong, _as_of(trial, member), _as_of(trial_to_clone, strong), config)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Drop what a finished member had taken over."""
        super().on_trial_complete(tune_controller, trial, result)
        _drop_clones(Path(trial.storage.trial_fs_path))


class Replay(FIFOScheduler):
    """Trials along a schedule of hyperparameters, such as that of a member of a population.

    Ray's own, PopulationBasedTrainingReplay, saves and pauses a trial that reports with a checkpoint in a way that
    Tune then waits for ever for its next result.

    Args:
        schedule: iterations, and what changes in the config after them.
    """

    def __init__(self, schedule: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        super().__init__()
        self._schedule = schedule
        self._passed: dict[Trial, int] = {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Have a trial that has come to a change pause, to go on from its checkpoint with the new config."""
        passed = self._passed.get(trial, 0)
        due = [changes for after, changes in self._schedule[passed:] if after <= result[TRAINING_ITERATION]]
        if not due:
            return str(TrialScheduler.CONTINUE)
        self._passed[trial] = passed + len(due)
        trial.set_config(reduce(merge_dicts, due, trial.config))
        return str(TrialScheduler.PAUSE)


def _goes_on_from(trial: Trial, result: Mapping[str, Any]) -> bool:
    """Tell whether a trial that is paused at a result goes on there: a class is saved as it pauses."""
    return bool(result.get("checkpoint_dir_name")) or not issubclass(trial.get_trainable_cls(), FunctionTrainable)


def _as_of(trial: Trial, state: Any) -> Any:
    """Return of a trial what the log of exploits needs, as it was when the population compared it."""
    return SimpleNamespace(
        trial_id=trial.trial_id,
        config=trial.config,
        local_dir=trial.local_dir,
        local_experiment_path=trial.local_experiment_path,
        last_result=state.last_result,
    )


def _all_wait(tune_controller: Any) -> bool:
    live = [trial for trial in tune_controller.get_trials() if not trial.is_finished()]
    return bool(live) and all(trial.status == Trial.PAUSED for trial in live)


def _register_newest(trial: Trial, result: dict[str, Any] | None) -> None:
    """Have Tune know the checkpoint of the result on which a member is paused; it would keep it for ever else."""
    if result is None or not result.get("checkpoint_dir_name"):
        return
    path = Path(trial.storage.trial_fs_path, result["checkpoint_dir_name"])
    checkpoints = trial.run_metadata.checkpoint_manager
    known = {Path(each.checkpoint.path) for each in checkpoints._checkpoint_results}
    if path not in known and path.is_dir():
        checkpoints.register_checkpoint(_TrainingResult(Checkpoint(str(path)), result))


def _clone(checkpoint: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    clone = Path(tempfile.mkdtemp(prefix=CLONES, dir=folder))
    shutil.copytree(checkpoint, clone, copy_function=_link_or_copy, dirs_exist_ok=True)
    _drop_clones(folder, but=clone)
    return clone


def _drop_clones(folder: Path, *, but: Path | None = None) -> None:
    for clone in folder.glob(f"{CLONES}*"):
        if clone != but:
            shutil.rmtree(clone, ignore_errors=True)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
