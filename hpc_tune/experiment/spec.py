"""The experiment: what the user writes, checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationInfo, field_validator

from hpc_tune.experiment.algorithms import Algorithm, Fifo, Random, SearcherSpec, TrialSchedulerSpec
from hpc_tune.experiment.allocation import Allocation, Duration
from hpc_tune.experiment.space import Domain, parse_space

__all__ = ["SEARCH_KEYS", "Checkpointing", "Experiment", "TrialResources", "changed_keys", "flatten", "spec_hash"]

SEARCH_KEYS = (
    "trainable", "data", "metric", "mode", "num_samples", "seed", "space", "searcher", "trial_scheduler", "stop",
)  # fmt: skip
"""The keys that make a search what it is: an interrupted run continues only if none of them changed."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrialResources(_Section):
    """What one trial needs, and how it is treated when it fails."""

    cpus: float = Field(1, gt=0)
    gpus: float = Field(0, ge=0)
    gpu_optional: bool = False
    """Run on CPUs where there is no GPU."""
    max_failures: int = Field(0, ge=-1)
    """How often a failed trial is started again from its last checkpoint; -1: always."""
    reuse_workers: bool = True
    """Let a worker process serve several trials, one after another; starting a process costs seconds."""

    @field_validator("gpus")
    @classmethod
    def _whole_or_fraction(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"fractions of a GPU must be below 1, above it whole numbers; got {gpus}")
        return gpus


class Checkpointing(_Section):
    """Which checkpoints are kept. When to write one is the trainable's business."""

    keep: int | None = Field(2, ge=1)
    """How many checkpoints of a trial stay on disk; the newest always does."""
    by: str | None = None
    """Keep the best by this metric; left out, the newest."""
    every: int = Field(0, ge=0)
    """For ``tune.Trainable`` classes: save after every so many iterations; 0: only at the end."""


def _trainable_reference(value: Any) -> Any:
    if callable(value):
        return value
    if not isinstance(value, str):
        raise ValueError(f'expected "file.py:name" or "package.module:name", got {value!r}')
    target, _, name = value.rpartition(":")
    if not target or not name.isidentifier():
        raise ValueError(
            f'expected "file.py:name" or "package.module:name", got {value!r}; for example "train.py:train"'
        )
    return value


Reference = Annotated[Any, AfterValidator(_trainable_reference)]
_SEARCHER: TypeAdapter[Any] = TypeAdapter(SearcherSpec)
_TRIAL_SCHEDULER: TypeAdapter[Any] = TypeAdapter(TrialSchedulerSpec)


def _algorithm(value: Any, adapter: TypeAdapter[Any], *methods: str) -> Any:
    """Validate a table; let a ready object of Ray Tune pass, recognised by one of the methods that Ray calls."""
    if isinstance(value, Mapping):
        return adapter.validate_python(value)
    if isinstance(value, Algorithm) or any(hasattr(value, method) for method in methods):
        return value
    raise ValueError(f"expected a table with a name, got {value!r}")


class Experiment(BaseModel):
    """A hyperparameter search as its owner describes it. See the README for the file's keys.

    In a ``.py`` file the trainable, ``data``, domains, searcher and trial scheduler may be objects of Ray Tune.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    trainable: Reference
    data: Reference | None = None
    evaluate: Reference | None = None
    """Scores a checkpoint on held-out data, for ``hpc-tune evaluate``; no part of the search."""
    metric: str = Field(min_length=1)
    mode: Literal["min", "max"]
    num_samples: int = Field(1, ge=1)
    time_budget: Duration | None = None
    seed: int | None = Field(None, ge=0, lt=2**32)
    space: dict[str, Any] = Field(default_factory=dict)
    searcher: Any = Random()
    trial_scheduler: Any = Fifo()
    stop: dict[str, float] = Field(default_factory=dict)
    tensorboard: bool = True
    """Write an event file per trial and attempt; false where a quota counts files."""
    trial: TrialResources = TrialResources()
    checkpoint: Checkpointing = Checkpointing()
    allocation: Allocation = Allocation()

    @field_validator("space")
    @classmethod
    def _space(cls, written: dict[str, Any]) -> dict[str, Any]:
        return parse_space(written)

    @field_validator("searcher")
    @classmethod
    def _searcher(cls, value: Any, info: ValidationInfo) -> Any:
        chosen = _algorithm(value, _SEARCHER, "suggest", "next_trial")  # a Searcher, a SearchAlgorithm
        if isinstance(chosen, Algorithm) and not isinstance(chosen, Random):
            leaves = flatten(info.data.get("space", {}), "space")
            grids = [key for key, domain in leaves if isinstance(domain, Domain) and domain.kind == "grid"]
            if grids:
                raise ValueError(
                    f"{grids[0]} is a grid, which the searcher {chosen.name!r} cannot search;"
                    " write { choice = [...] }, or leave out [searcher]"
                )
        return chosen

    @field_validator("trial_scheduler")
    @classmethod
    def _trial_scheduler(cls, value: Any) -> Any:
        return _algorithm(value, _TRIAL_SCHEDULER, "on_trial_result")

    @property
    def grid_size(self) -> int:
        """How many trials one sample stands for: the product of all grids."""
        size = 1
        for _, value in flatten(self.space, ""):
            if isinstance(value, Domain) and value.kind == "grid":
                size *= len(value.args)
            elif isinstance(value, dict) and set(value) == {"grid_search"}:
                size *= len(value["grid_search"])
        return size

    @property
    def total_trials(self) -> int:
        """How many trials the search has when nothing ends it early."""
        return self.num_samples * self.grid_size

    def as_json(self) -> dict[str, Any]:
        """Return the experiment as plain JSON values, as the run record keeps it."""
        return {key: _plain(getattr(self, key)) for key in type(self).model_fields}


def _plain(value: Any) -> Any:
    """Reduce a value to JSON. Objects of a ``.py`` file become their names: what is inside them is not compared."""
    if isinstance(value, Domain):
        return value.as_written()
    if isinstance(value, BaseModel):
        return {key: _plain(getattr(value, key)) for key in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    named: type | Callable[..., Any] = value if hasattr(value, "__qualname__") else type(value)
    return f"<{named.__module__}.{named.__qualname__}>"


def flatten(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested tables with their dotted keys; Ray's ``{"grid_search": …}`` counts as a leaf."""
    if isinstance(value, Mapping) and value and set(value) != {"grid_search"}:
        for name, inner in value.items():
            yield from flatten(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def spec_hash(spec: Mapping[str, Any]) -> str:
    """Return a short hash of those keys of a plain spec that make the search what it is."""
    canonical = json.dumps({key: spec.get(key) for key in SEARCH_KEYS}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return sentences for each search key that differs between two plain specs."""
    before, after = ({key: json.dumps(value) for key, value in _searched(spec)} for spec in (old, new))
    keys = [*before, *(key for key in after if key not in before)]
    pairs = [(key, before.get(key, "null"), after.get(key, "null")) for key in keys]
    # compared as they are written, like the hash: to Python 1, 1.0 and true are equal
    return [f"{key} was {was}, is {is_now}" for key, was, is_now in pairs if was != is_now]


def _searched(spec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from flatten({key: spec.get(key) for key in SEARCH_KEYS}, "")
