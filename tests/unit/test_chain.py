"""Attempts that follow one another by themselves, and when that must end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.chain import chain, lost_nodes, reason_to_end
from tests.unit.made_runs import NODES, MadeRun, ended, searching

FRUITLESS = replace(searching(), iterations=0)


@pytest.fixture
def made(project: Any, runs_dir: Path) -> MadeRun:
    return MadeRun(project.create_run(runs_dir, num_samples=8))


def numbers(made: MadeRun) -> list[int]:
    return [attempt.number for attempt in chain(made.run)]


def test_successors_make_a_chain_and_a_person_begins_a_new_one(made: MadeRun) -> None:
    made.submitted("1", ago=1000)
    made.attempt("1", ago=990)
    made.submitted("2", ago=800, by="successor")
    made.attempt("2", ago=790)
    assert numbers(made) == [1, 2]
    made.submitted("3", ago=500, by="resume")
    assert numbers(made) == []
    made.attempt("3", ago=530)  # on a node whose clock is slow
    assert numbers(made) == [3]


def test_the_last_attempt_allowed(made: MadeRun) -> None:
    made.submitted("1", ago=1000)
    for _ in range(3):
        made.attempt("1", progress=searching())
    assert reason_to_end(made.run, 4) is None
    assert reason_to_end(made.run, 3) == "3 attempts have been made, and max_attempts is 3"


def test_two_attempts_in_a_row_without_a_result_end_it_with_the_last_words(made: MadeRun) -> None:
    made.submitted("1", ago=1000)
    made.attempt("1", progress=searching())
    made.attempt("1", progress=FRUITLESS)
    assert reason_to_end(made.run, 20) is None, "one may be bad luck"
    last = made.attempt("1")
    last.driver_log.write_text("starting\nout of memory\n\n")
    assert reason_to_end(made.run, 20) == (
        "attempts 2 and 3 brought no new result; the last words of 003/driver.log: out of memory"
    )


def test_a_result_in_between_is_progress(made: MadeRun) -> None:
    made.submitted("1", ago=1000)
    for progress in (FRUITLESS, searching(), FRUITLESS):
        made.attempt("1", progress=progress)
    assert reason_to_end(made.run, 20) is None


def test_a_person_who_resumes_gets_a_chain_of_full_length(made: MadeRun) -> None:
    made.submitted("1", ago=1000)
    for _ in range(2):
        made.attempt("1", ago=900, progress=FRUITLESS)
    made.submitted("2", ago=500, by="resume")
    assert reason_to_end(made.run, 2) is None


def test_nodes_that_failed_or_fell_silent_are_lost_once_the_attempt_is_over(made: MadeRun) -> None:
    attempt = made.attempt("1", nodes=4)
    for rank, state in enumerate(("ended", "up", "failed", "starting")):
        made.node(attempt, NODES[rank], rank, state)
    assert lost_nodes(attempt) == []
    ended("interrupted", "the walltime is near").write(attempt.outcome_file)
    assert lost_nodes(attempt) == ["iris-170", "iris-171"]
