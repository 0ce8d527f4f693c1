"""What the table of trials says of a trial's log: all of it that has to be kept once its history is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hpc_tune.results.cells import kinds_of
from hpc_tune.results.resultlog import ResultLog

__all__ = ["LogDigest", "Reported"]


class Reported(Protocol):
    """What a trial reported: a `ResultLog`, or the digest of one."""

    @property
    def trial_id(self) -> str | None:
        """The trial's id, if a result names it."""
        ...

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Has a key for each metric."""
        ...

    @property
    def rows(self) -> int:
        """How many iterations there are, each counted once."""
        ...

    @property
    def last_iteration(self) -> int:
        """The highest iteration; 0 without any."""
        ...

    @property
    def seconds(self) -> float:
        """The time that went into the rows that are kept."""
        ...

    @property
    def node(self) -> str:
        """Where the line written last came from."""
        ...

    @property
    def started(self) -> float | None:
        """When the first iteration began."""
        ...

    @property
    def ended(self) -> float | None:
        """When the line written last was reported."""
        ...

    @property
    def done(self) -> bool:
        """Whether Tune ended the trial with the line written last."""
        ...

    @property
    def repeated(self) -> int:
        """Rows that a later one replaced."""
        ...

    @property
    def malformed(self) -> int:
        """Lines that are no result."""
        ...

    def last(self, name: str) -> Any:
        """Return a metric's last value."""
        ...

    def best(self, name: str, mode: str) -> tuple[float, int] | None:
        """Return a metric's best value and the iteration that reached it first."""
        ...


@dataclass(frozen=True)
class LogDigest:
    """A log without its rows. ``best`` answers for the search's own metric alone."""

    trial_id: str | None
    rows: int
    last_iteration: int
    iteration_kinds: str
    metrics: Mapping[str, str]
    """Of each metric the kinds of its values, as `kinds_of` tells them."""
    times: Mapping[str, str]
    lasts: Mapping[str, Any]
    best_value: tuple[float, int] | None
    seconds: float
    node: str
    started: float | None
    ended: float | None
    done: bool
    repeated: int
    malformed: int

    @classmethod
    def of(cls, log: ResultLog, metric: str, mode: str) -> LogDigest:
        """Sum up a log."""
        return cls(
            log.trial_id,
            log.rows,
            log.last_iteration,
            kinds_of(log.iterations),
            {name: kinds_of(column) for name, column in log.metrics.items()},
            {name: kinds_of(column) for name, column in log.times.items()},
            {name: log.last(name) for name in log.metrics},
            log.best(metric, mode),
            log.seconds,
            log.node,
            log.started,
            log.ended,
            log.done,
            log.repeated,
            log.malformed,
        )

    def last(self, name: str) -> Any:
        """Return a metric's last value."""
        return self.lasts.get(name)

    def best(self, name: str, mode: str) -> tuple[float, int] | None:
        """Return the best value of the search's metric and the iteration that reached it first."""
        return self.best_value
