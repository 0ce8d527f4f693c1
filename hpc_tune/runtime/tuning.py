"""One run of Tune: restored if there is something to restore, else begun."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback, ResumeConfig

from hpc_tune.experiment.duration import format_seconds
from hpc_tune.experiment.spec import Experiment, TrialResources
from hpc_tune.runtime import controller, search
from hpc_tune.runtime.events_log import EventsLog
from hpc_tune.runtime.results_log import ResultsLog
from hpc_tune.runtime.snapshots import begin_anew, saved_state
from hpc_tune.runtime.stopping import GracefulStop
from hpc_tune.runtime.trainable import TrialSettings, as_trainable, can_reuse_worker
from hpc_tune.runtime.watch import ProgressWriter

__all__ = ["Ended", "Tuning"]


@dataclass(frozen=True)
class Ended:
    """What Tune left behind."""

    trials: int
    errors: int
    unfinished: bool
    """A signal came before all trials had ended; a restore continues them."""
    reason: str
    notes: tuple[str, ...] = ()


class Tuning:
    """The search of one attempt."""

    def __init__(
        self,
        experiment: Experiment,
        *,
        storage: Path,
        trial: TrialResources,
        slots: int,
        seed: int,
        progress_file: Path,
        phases: dict[str, float],
        graceful_stop: GracefulStop,
    ) -> None:
        self._experiment = experiment
        self._storage = storage
        self._trial = trial
        self._slots = slots
        self._seed = seed
        self._graceful_stop = graceful_stop
        self._results_log = ResultsLog(storage)
        self._progress = ProgressWriter(
            progress_file,
            metric=experiment.metric,
            mode=experiment.mode,
            total=experiment.total_trials,
            slots=slots,
            phases=phases,
        )

    def run(self, user: Any, data: Any, *, retry_errors: bool, seconds_spent: float) -> Ended:
        """Search until all trials have ended, the time budget is used up, or a signal comes.

        Args:
            user: the user's trainable.
            data: what the experiment's ``data`` function returned.
            retry_errors: start failed trials again.
            seconds_spent: by earlier attempts, out of the time budget.

        Raises:
            ExperimentError: if the experiment turns out not to work: its metric is never reported, say.
        """
        experiment = self._experiment
        search.check_search(experiment)
        search.seed_driver(self._seed)
        settings = TrialSettings(self._storage, self._seed, self._trial.cpus)
        trainable = as_trainable(user, settings, data, has_data=experiment.data is not None)
        with controller.installed() as tuned:
            tuned.slots = self._slots
            tuned.num_samples = experiment.num_samples
            tuned.graceful_stop = self._graceful_stop
            tuned.written = self._results_log.written
            tuned.state_to_restore = saved_state(self._storage)
            if tuned.state_to_restore is None:
                self._progress.begin_with(begin_anew(self._storage))
            tuned.expected = search.expected_names(experiment)
            try:
                analysis = tune.run(
                    trainable,
                    resume_config=_resume_config(retry_errors) if tuned.state_to_restore else None,
                    reuse_actors=self._trial.reuse_workers and can_reuse_worker(user),
                    checkpoint_config=search.checkpoint_config(experiment, is_class=inspect.isclass(user)),
                    time_budget_s=_time_left(experiment, seconds_spent),
                    **self._arguments(),
                )
            except Exception:
                if tuned.fatal is not None:
                    raise tuned.fatal from None
                raise
        if not tuned.unfinished:  # else Tune has marked as finished what it stopped
            self._progress.write("ending", analysis.trials)
        return self._ended(analysis.trials, unfinished=tuned.unfinished, seconds_spent=seconds_spent)

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments of ``tune.run`` that the experiment alone decides."""
        experiment = self._experiment
        return {
            "name": self._storage.name,
            "storage_path": str(self._storage.parent),
            "metric": experiment.metric,
            "mode": experiment.mode,
            "config": search.ray_space(experiment.space),
            "num_samples": experiment.num_samples,
            "search_alg": search.searcher(experiment, seed=self._seed, slots=self._slots),
            "scheduler": search.trial_scheduler(experiment),
            "stop": search.stop_condition(experiment),
            "resources_per_trial": search.resources(self._trial),
            "max_failures": self._trial.max_failures,
            "raise_on_failed_trial": False,
            "trial_name_creator": _trial_id,
            "trial_dirname_creator": _trial_id,
            "callbacks": [self._results_log, *self._events_log(), self._progress],
            "verbose": 0,
        }

    def _events_log(self) -> list[Callback]:
        return [EventsLog(self._storage)] if self._experiment.tensorboard else []

    def _ended(self, trials: list[Any], *, unfinished: bool, seconds_spent: float) -> Ended:
        errors = sum(trial.status == "ERROR" for trial in trials)
        budget = self._experiment.time_budget
        spent = seconds_spent + self._progress.elapsed
        reason = "all trials have ended"
        if budget is not None and spent >= budget:
            reason = f"the time budget of {format_seconds(budget)} is used up"
        return Ended(len(trials), errors, unfinished, reason, self._progress.notes)


def _trial_id(trial: Any) -> str:
    """Name a trial's folder by its id alone: Tune's default holds every parameter and hits path limits."""
    return str(trial.trial_id)


def _resume_config(retry_errors: bool) -> ResumeConfig:
    kinds = ResumeConfig.ResumeType
    return ResumeConfig(
        finished=kinds.SKIP, unfinished=kinds.RESUME, errored=kinds.RESUME if retry_errors else kinds.SKIP
    )


def _time_left(experiment: Experiment, seconds_spent: float) -> float | None:
    if experiment.time_budget is None:
        return None
    return max(1.0, experiment.time_budget - seconds_spent)
