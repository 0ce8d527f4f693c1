"""How a live search and numbers look."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from hpc_tune import render
from hpc_tune.errors import UsageError
from hpc_tune.experiment.duration import format_seconds
from hpc_tune.operations.watching import Watcher
from hpc_tune.progress import Best, Progress
from hpc_tune.render import LineWatcher, TableWatcher, number, search, to_json


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"),
        (1.0, "1"),
        (0.123456789, "0.123457"),
        (1e-5, "1e-05"),
        (1234567.8, "1.23457e+06"),
        (float("nan"), "nan"),
        (3, "3"),
        (1234567, "1234567"),
        (-10_000_000, "-10000000"),
        (True, "True"),
        (None, "None"),
        ("0.50", "0.50"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_numbers(value: Any, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.04, "0.0 s"),
        (8.26, "8.3 s"),
        (12.7, "13 s"),
        (59.4, "59 s"),
        (59.7, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.6, "1 h 00 min"),
        (5400, "1 h 30 min"),
        (360000, "100 h 00 min"),
    ],
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


# ------------------------------------------------------------------------------- JSON


def test_json_has_a_schema_and_no_nan() -> None:
    numpy = pytest.importorskip("numpy")
    record = {
        "nan": float("nan"),
        "deep": [{"inf": float("inf")}, (1, -float("inf"))],
        "numpy": [numpy.float64("nan"), numpy.float64(0.5), numpy.int64(3), numpy.bool_(True)],
        "text": "ü",
        1: None,
    }
    text = to_json(record)
    assert "ü" in text
    assert json.loads(text, parse_constant=pytest.fail) == {
        "schema": 1,
        "nan": None,
        "deep": [{"inf": None}, [1, None]],
        "numpy": [None, 0.5, 3, True],
        "text": "ü",
        "1": None,
    }


# ------------------------------------------------------------------------------- errors


def test_an_error_goes_to_stderr_with_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    render.error(UsageError("wrong", hint="do this"))
    render.error(UsageError("wrong again"))
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "error: wrong\nhint: do this\nerror: wrong again\n")


# ------------------------------------------------------------------------------- lines


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("hpc_tune.render.search.time.monotonic", clock)
    return clock


@pytest.fixture
def lines(project: Any, runs_dir: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> LineWatcher:
    watcher = LineWatcher()
    loaded = project.load(num_samples=4)
    run = project.create_run(runs_dir, num_samples=4)
    watcher.started(run, loaded.experiment, ["trials run on CPUs"])
    assert capsys.readouterr().out.splitlines() == [
        f"run {run.name}: 4 trials of train.py:train",
        f"in {run.path}",
        "note: trials run on CPUs",
    ]
    return watcher


def running(**changes: Any) -> Progress:
    values = {"total": 4, "states": {"RUNNING": 2, "PENDING": 2}, "slots": 2, "elapsed": 65.0}
    return Progress("running", **{**values, **changes})


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress("starting", total=4), "starting Ray"),
        (running(), "1 min 05 s: 2 running, 2 waiting of 4"),
        (
            running(
                states={"ERROR": 1, "PAUSED": 1, "RUNNING": 1, "TERMINATED": 1},
                best=Best("a_00001", 0.87654321, 3, {"lr": 0.1}),
                eta_seconds=200.0,
            ),
            "1 min 05 s: 1 finished, 1 running, 1 paused, 1 failed of 4"
            " · best accuracy 0.876543 (trial a_00001, iteration 3) · about 3 min 20 s left",
        ),
        (running(states={}, elapsed=0.5), "0.5 s: 0 of 4"),
        (running(states={"RUNNING": 0, "TERMINATED": 4}), "1 min 05 s: 4 finished of 4"),
    ],
)
def test_a_line_says_how_far_it_is(
    lines: LineWatcher, capsys: pytest.CaptureFixture[str], progress: Progress, line: str
) -> None:
    lines.progress(progress)
    assert capsys.readouterr().out == line + "\n"


def test_a_line_comes_when_something_happened_or_after_a_while(
    lines: LineWatcher, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(progress: Progress) -> bool:
        lines.progress(progress)
        return capsys.readouterr().out != ""

    assert printed(Progress("starting"))
    assert not printed(Progress("starting"))
    assert printed(running())
    assert not printed(running(elapsed=66.0, iterations=5))
    for something in (
        running(states={"RUNNING": 2, "TERMINATED": 1}),
        running(states={"RUNNING": 2, "TERMINATED": 1}, best=Best("a", 1.0, 1, {})),
        running(states={"RUNNING": 1, "TERMINATED": 1, "ERROR": 1}, best=Best("a", 1.0, 1, {})),
    ):
        clock.now += 1.9
        assert not printed(something), "trials may end by the dozen"
        clock.now += 0.2
        assert printed(something)
    clock.now += 9.9
    same = running(states={"RUNNING": 1, "TERMINATED": 1, "ERROR": 1}, best=Best("a", 2.0, 2, {}))
    assert not printed(same)
    clock.now += 0.2
    assert printed(same)
    assert not printed(same)


def test_the_first_interrupt_is_heard(lines: LineWatcher, capsys: pytest.CaptureFixture[str]) -> None:
    lines.stopping()
    assert capsys.readouterr().out.startswith("stopping: saving the state of the search (interrupt again to end")


# ------------------------------------------------------------------------------- the table


def drawn(progress: Progress, metric: str = "accuracy") -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(search._table(progress, metric))
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def test_the_table() -> None:
    best = Best("a_00001", 0.5, 3, {"lr": 0.00012345678, "layers": [64, 64]})
    assert drawn(running(best=best, eta_seconds=30.0)) == (
        "trials  2 running, 2 waiting of 4; 2 at a time\n"
        "best    accuracy 0.5 (trial a_00001, iteration 3)\n"
        "        lr=0.000123457, layers=[64, 64]\n"
        "time    1 min 05 s, about 30 s left"
    )
    assert drawn(Progress("starting")) == "starting Ray …"


def test_what_a_user_named_is_shown_as_it_is() -> None:
    """Square brackets are markup to rich."""
    table = drawn(running(best=Best("a", 1.0, 1, {"path": "[/data]", "act": "[red]relu"})), "acc[val]")
    assert "acc[val] 1 (trial a" in table
    assert "path=[/data], act=[red]relu" in table


def test_the_watcher_suits_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(render.watcher(as_json=True)) is Watcher
    assert type(render.watcher(as_json=False)) is LineWatcher
    monkeypatch.setattr("hpc_tune.render.search.sys.stdout.isatty", lambda: True, raising=False)
    assert type(render.watcher(as_json=False)) is TableWatcher


def test_the_table_is_wiped_whatever_happens(project: Any, runs_dir: Path, capsys: Any) -> None:
    watcher = TableWatcher()
    run = project.create_run(runs_dir)

    def fail() -> None:
        with watcher:
            watcher.started(run, project.load().experiment, [])
            watcher.progress(running())
            raise UsageError("stop")

    with pytest.raises(UsageError):
        fail()
    watcher.progress(running())
    watcher.closed()
    assert "running" not in capsys.readouterr().out
