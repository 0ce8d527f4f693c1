"""What a report is made from: the tables of a run and what its records say of it, all read before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hpc_tune.results.images import Image
from hpc_tune.results.population import Population
from hpc_tune.results.report.cells import words
from hpc_tune.results.spans import Span
from hpc_tune.results.tables import SearchInfo, Tables

__all__ = ["BEST", "AttemptSpan", "RunView"]

BEST = "best_value"
_WORDS = {
    "TERMINATED": "finished",
    "ERROR": "failed",
    "INTERRUPTED": "interrupted",
    "RUNNING": "running",
    "PAUSED": "running",
    "PENDING": "waiting",
}
_STOPPERS = ("asha", "hyperband", "median")


@dataclass(frozen=True)
class AttemptSpan:
    """One attempt: its time in Unix seconds, what it had, how it ended."""

    number: int
    started: float
    ended: float
    nodes: int
    cpus: float
    """Of each node."""
    gpus: float
    """Of each node."""
    ending: str = ""
    """``completed``, ``interrupted``, ``failed``, or empty while it is live or where nobody could say."""
    reason: str = ""
    job_id: str = ""

    @property
    def hours(self) -> float:
        """How long it lasted."""
        return max(0.0, self.ended - self.started) / 3600


@dataclass(frozen=True)
class RunView:
    """A run as a report sees it."""

    name: str
    spec: Mapping[str, Any]
    info: SearchInfo
    tables: Tables
    summary: Mapping[str, Any]
    best: Mapping[str, Any] | None
    """The best trial's row of ``trials.csv``."""
    best_config: Mapping[str, Any]
    """Its config, nested as the trainable got it."""
    attempts: Sequence[AttemptSpan] = ()
    spans: Sequence[Span] = ()
    population: Population = field(default_factory=Population)
    images: Sequence[Image] = ()
    images_left_out: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    evaluations: Sequence[Mapping[str, Any]] = ()
    """What checkpoints scored on held-out data: ``trial``, ``checkpoint_iteration``, ``function``, flat ``metrics``."""

    @property
    def better(self) -> str:
        """The word for the direction of the metric."""
        return "higher" if self.info.mode == "max" else "lower"

    @cached_property
    def metric_column(self) -> str:
        """The metric's column in both tables: one that is called like a column of ours has a prefix there."""
        prefixed = f"metric/{self.info.metric}"
        return prefixed if prefixed in self.tables.history.columns else self.info.metric

    @property
    def searcher(self) -> str:
        """The searcher's name."""
        return _named(self.spec.get("searcher"))

    @property
    def trial_scheduler(self) -> str:
        """The trial scheduler's name."""
        return _named(self.spec.get("trial_scheduler"))

    def option(self, name: str, default: Any = None) -> Any:
        """Return an option of the trial scheduler; the default where it was left out or is an object of Python's."""
        written = self.spec.get("trial_scheduler")
        value = written.get(name) if isinstance(written, Mapping) else None
        return default if value is None else value

    @cached_property
    def outcomes(self) -> list[str]:
        """Return a word for each trial on how it ended: a trial that its trial scheduler stopped did not finish."""
        trials = self.tables.trials
        ends = [_WORDS.get(status, str(status).lower()) for status in trials["status"]]
        if not any(name in self.trial_scheduler.lower() for name in _STOPPERS):
            return ends
        iterations = [int(each) for each in trials["iterations"]]
        whole = max((n for n, word in zip(iterations, ends, strict=True) if word == "finished"), default=0)
        wanted = self._met_its_target()
        rows = zip(ends, iterations, wanted, strict=True)
        return ["stopped early" if w == "finished" and n < whole and not met else w for w, n, met in rows]

    def _met_its_target(self) -> list[bool]:
        """Tell of each trial whether a threshold of ``[stop]`` ended it."""
        trials = self.tables.trials
        met = [False] * len(trials)
        for name, threshold in (self.spec.get("stop") or {}).items():
            column = "iterations" if name == "training_iteration" else name
            if column in trials.columns:
                met = [a or _reaches(value, threshold) for a, value in zip(met, trials[column], strict=True)]
        return met

    @cached_property
    def hyperparameters(self) -> list[str]:
        """The names of the config's entries that differ between trials, without ``config/``."""
        trials = self.tables.trials
        names = [name for name in trials.columns if name.startswith("config/")]
        return [name.removeprefix("config/") for name in names if len(set(words(trials[name]))) > 1]

    def is_log(self, hyperparameter: str) -> bool:
        """Tell whether a hyperparameter was searched on a logarithmic scale."""
        value: Any = self.spec.get("space") or {}
        for key in hyperparameter.split("/"):
            value = value.get(key) if isinstance(value, Mapping) else None
        return isinstance(value, Mapping) and len(value) == 1 and "log" in next(iter(value))


def _named(algorithm: Any) -> str:
    if isinstance(algorithm, Mapping):
        return str(algorithm.get("name", "?"))
    return str(algorithm or "?").strip("<>").rpartition(".")[2]


def _reaches(value: Any, threshold: float) -> bool:
    try:
        return bool(float(value) >= threshold)
    except (TypeError, ValueError):
        return False
