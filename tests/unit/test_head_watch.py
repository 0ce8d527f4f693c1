"""A head that is lost, and one that only this node cannot reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_tune.attempt import Attempt, Head
from hpc_tune.runtime.head_watch import HeadWatch


class World:
    """A head, its driver, and a clock."""

    def __init__(self, path: Path) -> None:
        self.attempt = Attempt(path)
        self.now = 0.0
        self.answers = True
        self.works = True
        self.attempt.progress_file.write_text("0")
        self.watch = HeadWatch(
            self.attempt, Head("10.0.0.1:6400", "iris-169", 0.0), answers=lambda _: self.answers, clock=lambda: self.now
        )

    def seen_after(self, seconds: int) -> list[str]:
        """Let time go by; return what the watch says each second."""
        seen = []
        for _ in range(seconds):
            self.now += 1
            if self.works:
                self.attempt.progress_file.write_text(str(self.now))
            seen.append(self.watch.look())
        return seen


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_head_that_answers_is_there(world: World) -> None:
    world.works = False
    assert set(world.seen_after(100)) == {"there"}, "whatever its driver does"


def test_a_short_silence_is_no_loss(world: World) -> None:
    world.seen_after(10)
    world.answers = world.works = False
    assert set(world.seen_after(15)) == {"there"}
    world.answers = world.works = True
    assert set(world.seen_after(100)) == {"there"}


def test_a_head_whose_driver_falls_silent_too_is_lost(world: World) -> None:
    world.seen_after(10)
    world.answers = world.works = False
    seen = world.seen_after(30)
    assert set(seen[:20]) == {"there"}
    assert seen[-1] == "lost"
    assert "out of reach" not in seen


def test_a_head_whose_driver_goes_on_is_out_of_this_nodes_reach_alone(world: World) -> None:
    world.seen_after(10)
    world.answers = False
    seen = world.seen_after(20)
    assert set(seen[:15]) == {"there"}
    assert "lost" not in seen
    assert seen[-1] == "out of reach"
