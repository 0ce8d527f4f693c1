"""When a trial is told to write a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_tune.runtime import checkpointing
from hpc_tune.runtime.checkpointing import STOP_FILE, go_on_from, should_checkpoint

NO_TRIAL = ""


@pytest.fixture(autouse=True)
def _first_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STOP_FILE, raising=False)
    go_on_from(NO_TRIAL, 0)


def asked(times: int) -> list[bool]:
    assert checkpointing._trial_id() == NO_TRIAL
    return [should_checkpoint(every=3) for _ in range(times)]


def test_checkpoints_come_in_their_rhythm() -> None:
    assert asked(7) == [False, False, True, False, False, True, False]


def test_an_interruption_does_not_change_the_rhythm() -> None:
    """A population meets in every so many iterations, and goes on from what its members have saved by then."""
    go_on_from(NO_TRIAL, 4)
    assert asked(5) == [False, True, False, False, True]


def test_all_are_told_once_the_search_is_about_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STOP_FILE, str(tmp_path / "stop"))
    assert not should_checkpoint()
    (tmp_path / "stop").touch()
    assert asked(2) == [True, True]
    assert should_checkpoint()


def test_a_rhythm_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        should_checkpoint(every=0)
