"""Which reports a stop waits for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpc_tune.runtime.stopping import GracefulStop


@dataclass
class Trial:
    """What the stop looks at of one of Ray's."""

    status: str = "RUNNING"
    run_metadata: Any = field(default_factory=lambda: SimpleNamespace(last_result_time=None, last_result={}))

    def report(self, time: float, checkpoint: str | None = None) -> None:
        self.run_metadata.last_result_time = time
        self.run_metadata.last_result = {"checkpoint_dir_name": checkpoint}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_is_due_before_the_request(clock: Clock) -> None:
    assert not GracefulStop(60, clock=clock).is_due([])


def test_a_trial_has_saved_with_its_first_checkpoint_after_the_request(clock: Clock) -> None:
    trial, stop = Trial(), GracefulStop(60, clock=clock)
    trial.report(99.9, "checkpoint_000001")
    stop.request()
    assert not stop.is_due([trial]), "that one was before"
    trial.report(100.1, "checkpoint_000002")
    assert stop.is_due([trial])


def test_a_report_of_a_trial_that_had_not_been_told_counts_for_nothing(clock: Clock) -> None:
    """Its node's agent looks for the stop marker once a second."""
    trial, stop = Trial(), GracefulStop(60, clock=clock)
    stop.request()
    trial.report(100.9)
    assert not stop.is_due([trial])
    trial.report(101.2, "checkpoint_000002")
    assert stop.is_due([trial])


def test_a_trial_that_writes_no_checkpoints_is_not_waited_for_twice(clock: Clock, tmp_path: Path) -> None:
    for stop_file, instant in ((None, 103.0), (tmp_path / "stop", 101.0)):
        trial, stop = Trial(), GracefulStop(60, stop_file, clock=clock)
        stop.request()
        assert not stop.is_due([trial])
        trial.report(instant)
        assert stop.is_due([trial])
    assert (tmp_path / "stop").exists()


def test_trials_that_end_or_start_meanwhile_are_not_waited_for(clock: Clock) -> None:
    ending, starting = Trial(), Trial(status="PENDING")
    stop = GracefulStop(60, clock=clock)
    stop.request()
    assert not stop.is_due([ending, starting])
    ending.status, starting.status = "TERMINATED", "RUNNING"
    assert stop.is_due([ending, starting])


def test_patience_ends_and_a_second_request_ends_it_at_once(clock: Clock) -> None:
    stop = GracefulStop(60, clock=clock)
    stop.request()
    clock.now = 159.9
    assert not stop.is_due([Trial()])
    clock.now = 160.0
    assert stop.is_due([Trial()])
    hurried = GracefulStop(60, clock=clock)
    hurried.request()
    hurried.request()
    assert hurried.is_due([Trial()])
