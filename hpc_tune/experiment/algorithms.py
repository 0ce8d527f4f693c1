"""The searchers and trial schedulers that an experiment file can name, with the options of each.

One class per algorithm: its fields are the options, ``ray_class`` the class of Ray Tune that they are passed to.
Adding an algorithm means adding a class here, and nothing else. Defaults are Ray's unless a comment says why not.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from hpc_tune.errors import Fault
from hpc_tune.experiment.space import SpaceFaults, parse_space

__all__ = ["Algorithm", "SearcherSpec", "TrialSchedulerSpec", "names", "option_names"]


class Algorithm(BaseModel):
    """An algorithm of Ray Tune and its options."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ray_class: ClassVar[str]
    seed_option: ClassVar[str] = "seed"
    name: str

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments for the class of Ray Tune: the options that were given."""
        given = {key: getattr(self, key) for key in type(self).model_fields if key != "name"}
        return {key: value for key, value in given.items() if value is not None}


class Random(Algorithm):
    """Random sampling, and every combination of the ``grid`` domains."""

    ray_class: ClassVar[str] = "ray.tune.search.basic_variant:BasicVariantGenerator"
    seed_option: ClassVar[str] = "random_state"
    name: Literal["random"] = "random"
    constant_grid_search: bool | None = None


class HyperOpt(Algorithm):
    """Tree-structured Parzen estimators by HyperOpt (Bergstra et al. 2013)."""

    ray_class: ClassVar[str] = "ray.tune.search.hyperopt:HyperOptSearch"
    seed_option: ClassVar[str] = "random_state_seed"
    name: Literal["hyperopt"]
    n_initial_points: int | None = Field(None, ge=1)
    gamma: float | None = Field(None, gt=0, lt=1)
    points_to_evaluate: list[dict[str, Any]] | None = None


class Optuna(Algorithm):
    """Optuna's default sampler, TPE (Akiba et al. 2019)."""

    ray_class: ClassVar[str] = "ray.tune.search.optuna:OptunaSearch"
    name: Literal["optuna"]
    points_to_evaluate: list[dict[str, Any]] | None = None


class Fifo(Algorithm):
    """No early stopping: each trial runs to its end, first in, first out."""

    ray_class: ClassVar[str] = "ray.tune.schedulers:FIFOScheduler"
    name: Literal["fifo"] = "fifo"


class Asha(Algorithm):
    """Asynchronous successive halving (Li et al. 2018)."""

    ray_class: ClassVar[str] = "ray.tune.schedulers:AsyncHyperBandScheduler"
    name: Literal["asha"]
    time_attr: str = "training_iteration"
    max_t: float = Field(100, gt=0)
    grace_period: float = Field(1, gt=0)
    reduction_factor: float | None = Field(None, gt=1)
    brackets: int | None = Field(None, ge=1)

    @field_validator("grace_period")
    @classmethod
    def _within(cls, grace_period: float, given: ValidationInfo) -> float:
        if grace_period > (max_t := given.data.get("max_t", grace_period)):
            raise ValueError(f"expected at most max_t = {max_t:g}, got {grace_period:g}")
        return grace_period


class HyperBand(Algorithm):
    """HyperBand (Li et al. 2016): synchronous brackets; trials pause until their bracket is full."""

    ray_class: ClassVar[str] = "ray.tune.schedulers:HyperBandScheduler"
    name: Literal["hyperband"]
    time_attr: str = "training_iteration"
    max_t: int = Field(81, gt=0)
    reduction_factor: float | None = Field(None, gt=1)
    stop_last_trials: bool | None = None


class MedianStopping(Algorithm):
    """Stop a trial whose best result is below the median of the running averages (Golovin et al. 2017)."""

    ray_class: ClassVar[str] = "hpc_tune.runtime.trial_schedulers:MedianStopping"
    name: Literal["median_stopping"]
    # Ray counts seconds by default, which makes the decision depend on the machine.
    time_attr: str = "training_iteration"
    grace_period: float = Field(1, ge=0)
    min_samples_required: int | None = Field(None, ge=1)
    min_time_slice: int | None = Field(None, ge=0)
    hard_stop: bool | None = None


class Pbt(Algorithm):
    """Population based training (Jaderberg et al. 2017)."""

    ray_class: ClassVar[str] = "hpc_tune.runtime.trial_schedulers:Population"
    name: Literal["pbt"]
    # Ray counts seconds by default, which makes the schedule depend on the machine.
    time_attr: str = "training_iteration"
    perturbation_interval: float = Field(gt=0)
    burn_in_period: float | None = Field(None, ge=0)
    hyperparam_mutations: dict[str, Any]
    quantile_fraction: float | None = Field(None, ge=0, le=0.5)
    resample_probability: float | None = Field(None, ge=0, le=1)
    perturbation_factors: tuple[float, float] | None = None
    synch: bool | None = None

    @field_validator("hyperparam_mutations")
    @classmethod
    def _mutations(cls, written: dict[str, Any]) -> dict[str, Any]:
        if not written:
            raise ValueError(
                "expected at least one hyperparameter to mutate, such as { lr = { uniform = [1e-4, 1e-1] } }"
            )
        where = "trial_scheduler.hyperparam_mutations"
        constants = [key for key, value in written.items() if isinstance(value, str | int | float)]
        if constants:
            problem = "expected a domain, or a list of values to choose from"
            raise SpaceFaults([Fault(f"{where}.{key}", f"{problem}, got {written[key]!r}") for key in constants])
        return parse_space(written, key=where)


class Change(BaseModel):
    """New values of hyperparameters from an iteration on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after: int = Field(ge=1)
    """The iteration with whose result the trial stops to go on with them, from its checkpoint."""
    config: dict[str, Any]
    """What changes; tables within are merged."""


class Replay(Algorithm):
    """No early stopping: trials along a schedule of hyperparameters, such as that of a member of a population."""

    ray_class: ClassVar[str] = "hpc_tune.runtime.trial_schedulers:Replay"
    name: Literal["replay"]
    schedule: list[Change]

    def options(self) -> dict[str, Any]:
        """Return the schedule as pairs."""
        return {"schedule": [(change.after, change.config) for change in self.schedule]}

    @field_validator("schedule")
    @classmethod
    def _in_order(cls, schedule: list[Change]) -> list[Change]:
        iterations = [change.after for change in schedule]
        if iterations != sorted(set(iterations)):
            raise ValueError(f"expected iterations that grow, got {iterations}")
        return schedule


SearcherSpec = Annotated[Random | HyperOpt | Optuna, Field(discriminator="name")]
TrialSchedulerSpec = Annotated[Fifo | Asha | HyperBand | MedianStopping | Pbt | Replay, Field(discriminator="name")]


def _members(spec: Any) -> dict[str, type[Algorithm]]:
    members = get_args(get_args(spec)[0])
    return {get_args(member.model_fields["name"].annotation)[0]: member for member in members}


def names(spec: Any) -> list[str]:
    """Return the names that ``SearcherSpec`` or ``TrialSchedulerSpec`` accepts."""
    return list(_members(spec))


def option_names(spec: Any, name: str) -> list[str]:
    """Return the options of the algorithm ``name``."""
    return [key for key in _members(spec)[name].model_fields if key != "name"]
