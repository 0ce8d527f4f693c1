"""What a trial is told when it asks whether to save."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpc_tune import should_checkpoint
from hpc_tune.runtime import checkpointing
from hpc_tune.runtime.checkpointing import STOP_FILE


@pytest.fixture(autouse=True)
def current(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ask as a trial whose name the test chooses; the real one comes from Tune."""
    trial = SimpleNamespace(name="a")
    monkeypatch.setattr(checkpointing, "_trial_id", lambda: trial.name)
    monkeypatch.setattr(checkpointing, "_asked", {})
    monkeypatch.delenv(STOP_FILE, raising=False)
    return trial


@pytest.fixture
def stop_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(STOP_FILE, str(tmp_path / "stop"))
    return tmp_path / "stop"


def test_a_checkpoint_every_third_iteration() -> None:
    assert [should_checkpoint(every=3) for _ in range(7)] == [False, False, True, False, False, True, False]


def test_without_a_rhythm_only_the_end_counts(stop_file: Path) -> None:
    assert not any(should_checkpoint() for _ in range(3))
    stop_file.touch()
    assert all(should_checkpoint() for _ in range(3))


def test_each_iteration_counts_once_the_search_is_to_stop(stop_file: Path) -> None:
    assert not should_checkpoint(every=10)
    stop_file.touch()
    assert should_checkpoint(every=10)


def test_trials_that_share_a_process_count_for_themselves(current: Any) -> None:
    assert not should_checkpoint(every=2)
    current.name = "b"
    assert not should_checkpoint(every=2)
    assert should_checkpoint(every=2)
    current.name = "a"
    assert should_checkpoint(every=2)


def test_a_rhythm_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        should_checkpoint(every=0)
