"""What can happen to a search on a cluster, each at a random instant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.fault.field import Field, Lane

__all__ = ["SCENARIOS", "Scenario"]


@dataclass(frozen=True)
class Scenario:
    """A fault and how a search lives through it."""

    fault: str
    happens: Callable[[Lane], None]

    def play(self, field: Field) -> None:
        with field.lane(self.fault) as lane:
            self.happens(lane)


SCENARIOS: list[Scenario] = []


def scenario(fault: str) -> Callable[[Callable[[Lane], None]], Callable[[Lane], None]]:
    """Make a function a scenario; those that take longest come first."""

    def register(happens: Callable[[Lane], None]) -> Callable[[Lane], None]:
        SCENARIOS.append(Scenario(fault, happens))
        return happens

    return register


@scenario("walltime, twice")
def walltime(lane: Lane) -> None:
    search = lane.search("asha", nodes=2)
    for attempt in (1, 2):
        search.at_random_instant(latest=0.4)
        search.signal_walltime()
        search.wait_for_attempt(attempt + 1)
    search.wait_for_end()
    search.judge("walltime, twice", allowed=2)


@scenario("driver killed, twice")
def driver(lane: Lane) -> None:
    search = lane.search("optuna")
    for attempt in (1, 2):
        search.at_random_instant(latest=0.4)
        lane.kill(lane.nodes[0], "hpc_tune.runtime.driver")
        search.wait_for_attempt(attempt + 1)
    search.wait_for_end()
    search.judge("driver killed, twice", allowed=2 * search.every)


@scenario("scancel, then resume")
def scancel(lane: Lane) -> None:
    search = lane.search("random")
    search.at_random_instant()
    search.scancel()
    search.resume()
    search.wait_for_end()
    search.judge("scancel, then resume", allowed=search.every)
