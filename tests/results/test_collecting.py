"""Collecting again writes what collecting anew would, whatever has happened in between."""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.results import collecting, contents, prefetch
from hpc_tune.results.cache import CACHE_FILE
from hpc_tune.results.collecting import Collecting
from hpc_tune.results.csvfiles import write_tables
from hpc_tune.results.tables import SearchInfo, read_tables, summarize
from tests.results.made_storage import NAN, Storage, result, search

LONG_AGO = 1e9
TICKS = itertools.count()
TABLES = ("trials.csv", "history.csv", "summary.csv")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "storage")


def age(storage: Storage) -> None:
    """Make what is new look as if it had been written a while ago: else it might still change unseen."""
    for path in [*storage.path.glob("*/*"), *storage.path.iterdir()]:
        if path.stat().st_mtime > LONG_AGO + 1e6:
            when = LONG_AGO + next(TICKS)
            os.utime(path, (when, when))


class Collector:
    """Collects, and tells which folders were read for it."""

    def __init__(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.storage, self.directory = storage, storage.path.parent
        self.read: list[str] = []

        def spy(folder: Path) -> Any:
            self.read.append(folder.name)
            return contents.read_contents(folder)

        monkeypatch.setattr(prefetch, "read_contents", spy)

    def __call__(self, info: SearchInfo | None = None) -> dict[str, str]:
        info = info or search()
        self.read.clear()
        each = Collecting(self.directory, self.storage.path, info)
        each.write(summarize(each.reading, info, run="r", wall_seconds=1.0, attempts=1))
        written = {name: (self.directory / name).read_bytes().decode() for name in TABLES}
        assert written == self.anew(info)
        return written

    def anew(self, info: SearchInfo) -> dict[str, str]:
        folder = self.directory / "anew"
        folder.mkdir(exist_ok=True)
        tables = read_tables(self.storage.path, info)
        reading = tables.reading
        write_tables(folder, reading, summarize(reading, info, run="r", wall_seconds=1.0, attempts=1))
        written = {name: (folder / name).read_bytes().decode() for name in TABLES}
        for name, frame in (("trials.csv", tables.trials), ("history.csv", tables.history)):
            quoting: Any = csv.QUOTE_NONNUMERIC if "\r" in written[name] else csv.QUOTE_MINIMAL
            assert written[name] == frame.to_csv(index=False, lineterminator="\n", quoting=quoting)
        return written


@pytest.fixture
def collect(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Collector:
    for number in range(4):
        reports = [result(n, acc=0.1 * n + number, loss=NAN if n == 1 else 0.5) for n in (1, 2, 3)]
        storage.trial(f"a_{number:05d}", *reports, config={"lr": 0.1 * number, "opt": {"n": "sgd"}})
    storage.state(**{f"a_{number:05d}": "RUNNING" for number in range(6)})
    age(storage)
    collector = Collector(storage, monkeypatch)
    collector()
    assert len(collector.read) == 4
    return collector


def append(storage: Storage, trial_id: str, line: dict[str, Any] | str) -> None:
    text = line if isinstance(line, str) else json.dumps({"trial_id": trial_id} | line) + "\n"
    with (storage.path / trial_id / "result.json").open("a") as file:
        file.write(text)


def test_where_nothing_is_new_nothing_is_read_and_the_history_stays(collect: Collector) -> None:
    history = collect.directory / "history.csv"
    before = history.stat()
    collect()
    assert collect.read == []
    assert (history.stat().st_ino, history.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_only_the_trials_with_news_are_read(collect: Collector, storage: Storage) -> None:
    append(storage, "a_00001", result(4, acc=7.5, loss=0.25))
    storage.trial("a_00004", result(1, acc=0.5, loss=0.5))
    history = collect()["history.csv"]
    assert sorted(collect.read) == ["a_00001", "a_00004"]
    assert "a_00001,4,7.5,0.25," in history
    assert collect()["history.csv"] == history


def test_what_has_just_been_written_is_read_again(collect: Collector, storage: Storage) -> None:
    """A change within one tick of the file system's clock would bear the same time stamp."""
    append(storage, "a_00001", result(4, acc=7.5, loss=0.25))
    collect()
    collect()
    assert collect.read == ["a_00001"]


def shrink(storage: Storage) -> None:
    path = storage.path / "a_00001/result.json"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1]))


def replace(storage: Storage) -> None:
    """Put another file of the same size and time in its place."""
    path = storage.path / "a_00001/result.json"
    beside = path.with_name("beside")
    beside.write_text(path.read_text().replace('"acc": 1.1', '"acc": 9.9'))
    for old, new in ((path, beside), (path.parent, path.parent)):
        before = old.stat()
        if new is not beside:
            beside.replace(path)
        os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))


def overwrite(storage: Storage) -> None:
    path = storage.path / "a_00001/result.json"
    path.write_text(path.read_text().replace('"acc": 1.1', '"acc": 9.9'))


def exploit(storage: Storage) -> None:
    (storage.path / "a_00001/params.json").write_text('{"lr": 0.7, "opt": {"n": "adam"}}')


def checkpoint(storage: Storage) -> None:
    append(storage, "a_00001", result(4, acc=0.5, loss=0.5, checkpoint_dir_name="checkpoint_000000"))
    (storage.path / "a_00001/checkpoint_000000").mkdir()


def half_a_line(storage: Storage) -> None:
    append(storage, "a_00001", '{"acc": 0.9, "training_it')


def repeat(storage: Storage) -> None:
    append(storage, "a_00001", result(2, acc=0.25, loss=0.5))


def fail(storage: Storage) -> None:
    (storage.path / "a_00001/error.txt").write_text("ValueError: lr too big\n")
    (storage.path / "state.zip").unlink()
    storage.state(a_00000="TERMINATED", a_00001="ERROR", a_00005="PENDING")


def note(storage: Storage) -> None:
    (storage.path / "a_00001/notes.txt").write_text("a checkpoint was damaged\n")


def vanish(storage: Storage) -> None:
    shutil.rmtree(storage.path / "a_00001")


def new_metric(storage: Storage) -> None:
    append(storage, "a_00001", result(4, acc=0.5, loss=0.5, late=1))


def other_kind(storage: Storage) -> None:
    append(storage, "a_00001", result(4, acc=0.5, loss="much"))


def carriage_return(storage: Storage) -> None:
    append(storage, "a_00001", result(4, acc=0.5, loss="a\rb"))


def large_number(storage: Storage) -> None:
    append(storage, "a_00001", result(4, acc=10**30, loss=-(10**400)))


CHANGES = [
    shrink, replace, overwrite, exploit, checkpoint, half_a_line, repeat, fail, note, vanish, new_metric, other_kind,
    carriage_return, large_number,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_change_is_noticed(collect: Collector, storage: Storage, change: Callable[[Storage], None]) -> None:
    before = {name: (collect.directory / name).read_text() for name in TABLES}
    change(storage)
    assert collect() != before
    age(storage)
    collect()
    collect()
    assert [name for name in collect.read if name != "a_00001"] == []


@pytest.mark.parametrize("text", ["", "{}", "[1]\n[2]\n[3]", "\0" * 100, '{"version": [1, "9"]}\n[]'])
def test_a_cache_of_no_use_is_made_anew(collect: Collector, text: str) -> None:
    (collect.directory / CACHE_FILE).write_text(text)
    collect()
    assert len(collect.read) == 4
    collect()
    assert collect.read == []


def test_half_a_cache_is_made_anew(collect: Collector) -> None:
    path = collect.directory / CACHE_FILE
    path.write_bytes(path.read_bytes()[:-20])
    collect()
    assert len(collect.read) == 4


@pytest.mark.parametrize("edit", [Path.unlink, lambda path: path.write_text(path.read_text().replace("1", "2"))])
def test_a_history_that_somebody_changed_is_written_anew(collect: Collector, edit: Callable[[Path], None]) -> None:
    edit(collect.directory / "history.csv")
    collect()
    assert len(collect.read) == 4


def test_another_question_is_answered_anew(collect: Collector) -> None:
    collect(search(mode="min"))
    assert len(collect.read) == 4


def test_the_end_of_a_run_changes_what_its_trials_are(collect: Collector) -> None:
    collect(search(live=True))
    collect(search(live=False))
    assert collect.read == []


def test_a_class_trainable_may_fill_its_checkpoint_later(collect: Collector, storage: Storage) -> None:
    folder = storage.path / "a_00001/checkpoint_000000"
    folder.mkdir()
    age(storage)
    collect()
    (folder / "model.pt").touch()
    age(storage)
    assert "storage/a_00001/checkpoint_000000" in collect()["trials.csv"]


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    collect: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    (collect.directory / CACHE_FILE).unlink()
    (collect.directory / CACHE_FILE).mkdir()
    collect()
    assert len(collect.read) == 4
    assert [path.name for path in collect.directory.glob(f"{CACHE_FILE}.*")] == []


@pytest.mark.parametrize("change", [None, exploit, new_metric, other_kind, large_number, half_a_line])
def test_several_processes_read_what_one_would(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, change: Callable[[Storage], None] | None
) -> None:
    """Also where the rows that they wrote do not fit together, and have to be written anew."""
    for number in range(6):
        storage.trial(f"a_{number:05d}", *(result(n, acc=0.1 * n, loss=NAN if n == 1 else 0.5) for n in (1, 2, 3)))
    if change is not None:
        change(storage)
    age(storage)
    read_elsewhere = []

    def spy(futures: Any) -> Any:
        read_elsewhere.append(found := prefetch.gathered(futures))
        return found

    monkeypatch.setattr(collecting, "gathered", spy)
    monkeypatch.setattr(prefetch, "WORTH_A_PROCESS", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    collect = Collector(storage, monkeypatch)
    collect()
    collect.read.clear()
    assert len(read_elsewhere[0]) == (5 if change is large_number else 6)
    collect()
    assert collect.read == (["a_00001"] if change is large_number else [])


def test_a_process_that_dies_costs_nothing_but_time(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        storage.trial(f"a_{number:05d}", result(1, acc=0.5))
    parent = os.getpid()

    def read_here_only(folder: Path) -> Any:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return contents.read_contents(folder)

    monkeypatch.setattr(prefetch, "WORTH_A_PROCESS", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    collect = Collector(storage, monkeypatch)
    monkeypatch.setattr(prefetch, "read_contents", read_here_only)
    collect()


WRITER = """
import json, sys
from pathlib import Path
logs = [(Path(sys.argv[1]) / f"a_{n:05d}").joinpath("result.json").open("ab", buffering=0) for n in range(4)]
for iteration in range(4, 3000):
    for log in logs:
        row = {"trial_id": log.name.split("/")[-2], "acc": 1.0 / iteration, "training_iteration": iteration}
        log.write(json.dumps(row).encode() + b"\\n")
"""


def test_a_search_may_write_meanwhile(storage: Storage, collect: Collector) -> None:
    """Each time the rows of a trial are whole, in order, and not fewer than before."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(storage.path)])
    lengths: list[int] = [0]
    while writer.poll() is None:
        each = Collecting(collect.directory, storage.path, search(live=True))
        each.write(summarize(each.reading, search(), run="r", wall_seconds=None, attempts=1))
        lines = (collect.directory / "history.csv").read_text().splitlines()
        for number in range(4):
            rows = [line.split(",") for line in lines if line.startswith(f"a_{number:05d},")]
            assert [int(row[1]) for row in rows] == list(range(1, len(rows) + 1))
        lengths.append(len(lines))
    assert lengths == sorted(lengths)
    collect()
    assert len((collect.directory / "history.csv").read_text().splitlines()) == 1 + 4 * 2999


def test_as_random_as_it_gets(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of all kinds, in trials that come, grow, and change, collected again after each change."""
    dice = random.Random(11)
    values = [
        0.5,
        1,
        NAN,
        float("inf"),
        None,
        True,
        "text",
        "a,b",
        'q"',
        "a\rb",
        "",
        [1, 2],
        {"x": 1},
        10**25,
        1e-7,
        -0.0,
    ]
    collect = Collector(storage, monkeypatch)
    for _ in range(60):
        trial_id = f"a_{dice.randrange(5):05d}"
        report = {name: dice.choice(values) for name in dice.sample(["acc", "m", "n", "date", "status"], 3)}
        if not (storage.path / trial_id).exists():
            storage.trial(trial_id, config={name: dice.choice(values) for name in ("lr", "k")})
        append(storage, trial_id, result(dice.randrange(1, 9), **report))
        if dice.random() < 0.5:
            age(storage)
        collect()
