"""From an experiment to the arguments of ``tune.run``."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ray import tune
from ray.tune.utils import flatten_dict

from hpc_tune.errors import ExperimentError, Fault
from hpc_tune.experiment.algorithms import Algorithm, HyperBand, Pbt, Random
from hpc_tune.experiment.space import Domain
from hpc_tune.experiment.spec import Experiment, TrialResources

__all__ = [
    "check_search",
    "checkpoint_config",
    "expected_names",
    "ray_space",
    "resources",
    "searcher",
    "seed_driver",
    "stop_condition",
    "trial_scheduler",
]


def ray_space(value: Any) -> Any:
    """Turn domains into objects of Ray Tune, at any depth."""
    if isinstance(value, Domain):
        if value.kind == "grid":
            return tune.grid_search(list(value.args))
        if value.kind == "choice":
            return tune.choice(list(value.args))
        return getattr(tune, value.kind)(*value.args)
    if isinstance(value, Mapping):
        return {key: ray_space(inner) for key, inner in value.items()}
    return value


def _build(algorithm: Algorithm, **further: Any) -> Any:
    module, _, name = algorithm.ray_class.partition(":")
    options = {key: ray_space(value) for key, value in algorithm.options().items()}
    return getattr(importlib.import_module(module), name)(**options, **further)


def searcher(experiment: Experiment, *, seed: int, slots: int) -> Any:
    """Build the searcher, asking it for as many trials at once as can run.

    Tune asks a searcher for one trial at a time unless it is told otherwise, which leaves all slots but one idle.
    A trial scheduler that pauses trials needs them all, since a paused trial still counts.
    """
    chosen = experiment.searcher
    if not isinstance(chosen, Algorithm):
        return chosen
    built = _build(chosen, **{chosen.seed_option: seed})
    if isinstance(chosen, Random):
        return built
    pauses = isinstance(experiment.trial_scheduler, HyperBand | Pbt)
    return tune.search.ConcurrencyLimiter(built, max_concurrent=experiment.total_trials if pauses else slots)


def trial_scheduler(experiment: Experiment) -> Any:
    """Build the trial scheduler."""
    chosen = experiment.trial_scheduler
    return _build(chosen) if isinstance(chosen, Algorithm) else chosen


def check_search(experiment: Experiment) -> None:
    """Let the searcher look at the space before Ray starts, and turn its complaint into a fault.

    Raises:
        ExperimentError: if the searcher cannot search one of the domains.
    """
    if not isinstance(experiment.searcher, Algorithm) or isinstance(experiment.searcher, Random):
        return
    built = _build(experiment.searcher)
    try:
        built.set_search_properties(experiment.metric, experiment.mode, ray_space(experiment.space))
    except (ValueError, TypeError, NotImplementedError) as error:
        problem = f"{experiment.searcher.name} cannot search it: {error}"
        raise ExperimentError(
            experiment.name, [Fault("space", problem, "leave out [searcher] to sample at random")]
        ) from error


def seed_driver(seed: int) -> None:
    """Seed what trial schedulers draw from; PBT uses the global generators."""
    random.seed(seed)
    np.random.seed(seed)


def stop_condition(experiment: Experiment) -> Callable[[str, dict[str, Any]], bool] | None:
    """Return Tune's stop function: a trial ends when a key reaches its value, from above where the metric is minimised.

    Tune itself stops at "greater or equal" whatever the mode.
    """
    if not experiment.stop:
        return None

    def reached(key: str, value: float, limit: float) -> bool:
        return value <= limit if key == experiment.metric and experiment.mode == "min" else value >= limit

    def stop(trial_id: str, result: dict[str, Any]) -> bool:
        flat = flatten_dict(result)
        return any(key in flat and reached(key, flat[key], limit) for key, limit in experiment.stop.items())

    return stop


def expected_names(experiment: Experiment) -> dict[str, str]:
    """Return the names that each result must hold, by the key of the experiment file that asks for them."""
    names = {"metric": experiment.metric} | {f"stop.{key}": key for key in experiment.stop}
    time_attr = getattr(experiment.trial_scheduler, "time_attr", None)  # a trial scheduler of a .py file has none
    return names | ({"trial_scheduler.time_attr": time_attr} if time_attr else {})


def checkpoint_config(experiment: Experiment, *, is_class: bool) -> tune.CheckpointConfig:
    """Return which checkpoints Tune keeps, and for classes when it takes one."""
    wanted = experiment.checkpoint
    by = {"checkpoint_score_attribute": wanted.by, "checkpoint_score_order": experiment.mode} if wanted.by else {}
    when = {"checkpoint_frequency": wanted.every, "checkpoint_at_end": True} if is_class else {}
    return tune.CheckpointConfig(num_to_keep=wanted.keep, **by, **when)


def resources(trial: TrialResources) -> dict[str, float]:
    """Return a trial's request as Ray counts it."""
    return {"cpu": trial.cpus, "gpu": trial.gpus}
