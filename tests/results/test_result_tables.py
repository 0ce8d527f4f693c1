"""What a user relies on in trials.csv, history.csv and summary.csv, on storage paths made by hand."""

from __future__ import annotations

import csv
import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pandas
import pytest

from hpc_tune.errors import RunError
from hpc_tune.results.csvfiles import write_tables
from hpc_tune.results.failure import LONGEST, error_line
from hpc_tune.results.tables import Tables, best_trial, read_tables, summarize
from tests.results.made_storage import MEMBER, NAN, START, Storage, result, search, state_json, static


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "storage")


def read(storage: Storage, **changes: Any) -> Tables:
    return read_tables(storage.path, search(**changes))


def rows(frame: pandas.DataFrame) -> list[dict[str, Any]]:
    """Return a table as dictionaries without what is missing."""
    records = frame.to_dict("records")
    return [{str(k): v for k, v in row.items() if not pandas.isna(v) and v != ""} for row in records]


def status_of(tables: Tables) -> dict[str, str]:
    return dict(zip(tables.trials["trial_id"], tables.trials["status"], strict=True))


# ------------------------------------------------------------------------------- one whole trial


def test_a_trial_becomes_one_row_and_its_reports_a_history(storage: Storage) -> None:
    reports = [
        result(1, loss=0.9, acc=0.5),
        result(2, loss=0.4, acc=0.8, checkpoint_dir_name="checkpoint_000000"),
        result(3, loss=0.5, acc=0.7, done=True),
    ]
    folder = storage.trial("a1b2c_00000", *reports, config={"lr": 0.01, "layers": 3})
    (folder / "checkpoint_000000").mkdir()
    tables = read(storage)
    assert list(tables.trials.columns) == [
        *("trial_id", "status", "config/lr", "config/layers", "acc", "loss", "best_value", "best_iteration"),
        *("iterations", "seconds", "node", "started", "ended", "checkpoint", "error"),
    ]
    assert rows(tables.trials) == [
        {
            "trial_id": "a1b2c_00000",
            "status": "TERMINATED",
            "config/lr": 0.01,
            "config/layers": 3,
            "acc": 0.7,
            "loss": 0.5,
            "best_value": 0.8,
            "best_iteration": 2,
            "iterations": 3,
            "seconds": 6.0,
            "node": "iris-172",
            "started": "2026-11-24T00:01:40Z",
            "ended": "2026-11-24T00:01:46Z",
            "checkpoint": "storage/a1b2c_00000/checkpoint_000000",
        }
    ]
    assert list(tables.history.columns) == [
        *("trial_id", "training_iteration", "acc", "loss", "time_total_s", "time_this_iter_s", "timestamp")
    ]
    assert tables.history["acc"].tolist() == [0.5, 0.8, 0.7]
    assert tables.report.warning() is None


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_storage_gives_empty_tables_that_can_be_written(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "storage").mkdir()
    tables = read_tables(tmp_path / "storage", search())
    summary = summarize(tables.reading, search(), run="r", wall_seconds=None, attempts=1)
    write_tables(tmp_path, tables.reading, summary)
    assert len(tables.trials) == len(tables.history) == 0
    assert best_trial(tables.trials, search()) is None
    assert pandas.read_csv(tmp_path / "trials.csv").columns[:2].tolist() == ["trial_id", "status"]
    assert rows(pandas.read_csv(tmp_path / "summary.csv"))[0]["trials"] == 0


def test_trials_are_in_order_of_number(storage: Storage) -> None:
    for number in (10, 2, 100000, 99999, 0):
        storage.trial(f"a_{number:05d}", result(1, acc=1.0))
    tables = read(storage)
    expected = ["a_00000", "a_00002", "a_00010", "a_99999", "a_100000"]
    assert tables.trials["trial_id"].tolist() == tables.history["trial_id"].tolist() == expected


def test_trials_without_numbers_are_in_order_of_start(storage: Storage) -> None:
    for trial_id, began in (("3196b86f", 7), ("12345678", 9), ("ff00ff00", 5)):
        storage.trial(trial_id, result(1, acc=1.0, timestamp=START + began))
    assert read(storage).trials["trial_id"].tolist() == ["ff00ff00", "3196b86f", "12345678"]


# --------------------------------------------------------------------- repeated and broken lines


def test_of_a_repeated_iteration_the_last_counts(storage: Storage) -> None:
    first_life = [result(n, acc=0.1 * n) for n in (1, 2, 3, 4)]
    second_life = [result(n, acc=0.5 + 0.1 * n, hostname="iris-173") for n in (3, 4, 5)]
    storage.trial("a_00000", *first_life, *second_life)
    tables = read(storage)
    assert tables.history["training_iteration"].tolist() == [1, 2, 3, 4, 5]
    assert tables.history["acc"].tolist() == pytest.approx([0.1, 0.2, 0.8, 0.9, 1.0])
    assert tables.report.repeated_rows == 2
    (trial,) = rows(tables.trials)
    assert (trial["iterations"], trial["seconds"], trial["node"]) == (5, 10.0, "iris-173")


def test_seconds_go_on_when_a_restore_without_checkpoint_starts_the_total_again(storage: Storage) -> None:
    lives = [result(1, acc=0), result(2, acc=0), result(3, acc=0), result(1, acc=0), result(2, acc=0)]
    storage.trial("a_00000", *lives, result(3, acc=0), result(4, acc=0, time_total_s=1.0))
    assert read(storage).trials["seconds"].tolist() == [8.0]


def test_a_half_written_last_line_is_left_out_and_told(storage: Storage) -> None:
    storage.trial("a_00000", result(1, acc=0.5), '{"acc": 0.9, "training_it')
    tables = read(storage)
    assert tables.history["acc"].tolist() == [0.5]
    assert tables.report.malformed_lines == 1
    assert tables.report.malformed_files == (storage.path / "a_00000" / "result.json",)
    assert tables.report.warning() == "1 half-written line found; damaged: a_00000/result.json"


@pytest.mark.parametrize(
    "garbage",
    [
        "\0\0\0\0garbage",
        "[1, 2]",
        '"text"',
        "{}",
        '{"training_iteration": "2"}',
        "[" * 100_000,
        '{"a": "\ufffd',
        "1" * 5000,
    ],
    ids=["bytes", "list", "text", "empty", "text iteration", "deep", "half", "long number"],
)
def test_garbage_in_the_middle_costs_only_itself(storage: Storage, garbage: str) -> None:
    storage.trial("a_00000", result(1, acc=0.5), garbage + "\n", result(2, acc=0.6))
    tables = read(storage)
    assert tables.history["acc"].tolist() == [0.5, 0.6]
    assert tables.report.malformed_lines == 1


def test_lines_that_are_json_only_together_are_not_taken(storage: Storage) -> None:
    together = '{"training_iteration": 7, "acc": [1\n2]}\n'
    storage.trial("a_00000", result(1, acc=0.5), together, result(2, acc=0.6))
    tables = read(storage)
    assert tables.history["training_iteration"].tolist() == [1, 2]
    assert tables.report.malformed_lines == 2


def test_two_lines_that_are_two_results_only_together_are_not_taken(storage: Storage) -> None:
    together = '{"training_iteration": 7, "acc": "\n"}, {"training_iteration": 8}\n'
    storage.trial("a_00000", result(1, acc=0.5), together)
    assert read(storage).history["training_iteration"].tolist() == [1]


def test_a_nested_object_at_the_end_of_half_a_line_is_not_a_result(storage: Storage) -> None:
    storage.trial("a_00000", result(1, acc=0.5), '{"donor": {"training_iteration": 9, "acc": 1}\n')
    tables = read(storage)
    assert tables.history["training_iteration"].tolist() == [1]
    assert tables.report.malformed_lines == 1


def test_the_line_written_last_tells_where_and_until_when_a_trial_ran(storage: Storage) -> None:
    first_life = [result(n, acc=0.5, done=n == 4) for n in (1, 2, 3, 4)]
    storage.trial("a_00000", *first_life, result(1, acc=0.5, hostname="iris-173", timestamp=START + 100))
    (trial,) = rows(read(storage).trials)
    assert (trial["node"], trial["status"], trial["iterations"]) == ("iris-173", "INTERRUPTED", 4)
    assert (trial["started"], trial["ended"]) == ("2026-11-24T00:01:40Z", "2026-11-24T00:03:20Z")


@pytest.mark.parametrize("half", ['{"acc": 0.1, "loss": {"g', "\0\0\0\0", '{"acc": 0.9, "s": "half a text'])
def test_a_result_appended_to_half_a_line_is_not_lost(storage: Storage, half: str) -> None:
    storage.trial("a_00000", result(1, acc=0.5), half, result(2, loss={"g": 1.0}, acc=0.6))
    tables = read(storage)
    assert tables.history["training_iteration"].tolist() == [1, 2]
    assert tables.history["acc"].tolist() == [0.5, 0.6]
    assert tables.report.malformed_lines == 1


def test_many_damaged_files_make_one_sentence(storage: Storage) -> None:
    for number in range(5):
        storage.trial(f"a_{number:05d}", "{", config={})
    warning = read(storage).report.warning()
    assert warning is not None
    assert warning.startswith("5 half-written lines found; damaged: a_00000/result.json, ")
    assert warning.endswith(" and 2 more")


def test_a_damaged_params_file_falls_back_to_the_state(storage: Storage) -> None:
    folder = storage.trial("a_00000", result(1, acc=0.5))
    (folder / "params.json").write_text('{"lr": 0.')
    storage.state(a_00000="TERMINATED")
    tables = read(storage)
    assert tables.trials["config/lr"].tolist() == [0.7]
    assert tables.report.malformed_files == (folder / "params.json",)
    assert tables.report.warning() == "damaged: a_00000/params.json"


def test_an_empty_params_file_is_told_and_a_missing_one_is_not(storage: Storage) -> None:
    (storage.trial("a_00000", result(1, acc=0.5)) / "params.json").write_text("")
    (storage.trial("a_00001", result(1, acc=0.5)) / "params.json").unlink()
    tables = read(storage)
    assert tables.trials["trial_id"].tolist() == ["a_00000", "a_00001"]
    assert tables.report.malformed_files == (storage.path / "a_00000" / "params.json",)


def test_an_unreadable_result_file_is_told_and_not_fatal(storage: Storage) -> None:
    storage.trial("a_00000", result(1, acc=0.5))
    folder = storage.trial("a_00001")
    (folder / "result.json").unlink()
    (folder / "result.json").mkdir()
    tables = read(storage)
    assert tables.history["trial_id"].tolist() == ["a_00000"]
    assert tables.report.malformed_files == (folder / "result.json",)


# --------------------------------------------------------------------------- metrics and columns


def test_a_metric_that_comes_late_has_a_column_and_its_last_value(storage: Storage) -> None:
    storage.trial("a_00000", result(1, acc=0.5), result(2, acc=0.6, val=7), result(3, acc=0.7))
    storage.trial("a_00001", result(1, extra=1.5, acc=0.1))
    tables = read(storage)
    assert list(tables.history.columns)[2:5] == ["acc", "val", "extra"]
    assert [row.get("val") for row in rows(tables.history)] == [None, 7, None, None]
    assert [row.get("val") for row in rows(tables.trials)] == [7, None]
    assert [row.get("extra") for row in rows(tables.trials)] == [None, 1.5]


def test_whole_numbers_stay_whole_where_some_are_missing(storage: Storage, tmp_path: Path) -> None:
    storage.trial("a_00000", result(1, acc=0.5, epoch=3), config={"hidden": 128})
    storage.trial("a_00001", result(1, acc=0.5), config={"depth": 2})
    cells = written(tmp_path, read(storage))
    assert [row["config/hidden"] for row in cells["trials"]] == ["128", ""]
    assert [row["epoch"] for row in cells["history"]] == ["3", ""]
    assert [row["best_iteration"] for row in cells["trials"]] == ["1", "1"]


def test_nested_metrics_and_configs_are_flattened_and_lists_are_json(storage: Storage) -> None:
    config = {"opt": {"name": "adam", "betas": [0.9, None]}, "cosine": True, "wd": None, "empty": {}}
    metrics = {"acc": 1, "loss": {"g": 1.0, "d": {"real": 2.0}}, "per_class": [1, 2]}
    storage.trial("a_00000", result(1, **metrics), config=config)
    tables = read(storage, metric="loss/g", mode="min")
    (trial,) = rows(tables.trials)
    assert trial["config/opt/name"] == "adam"
    assert trial["config/opt/betas"] == "[0.9, null]"
    assert trial["config/cosine"] is True
    assert (trial["loss/g"], trial["loss/d/real"], trial["per_class"]) == (1.0, 2.0, "[1, 2]")
    assert trial["best_value"] == 1.0
    assert {"config/wd", "config/empty"} <= set(tables.trials.columns)
    names = list(tables.trials.columns)
    assert names[names.index("config/empty") + 1] == "loss/g"


def test_a_metric_may_be_now_a_number_and_now_something_else(storage: Storage) -> None:
    reports = [
        result(1, acc=1, x=1),
        result(2, acc=2.5, x={"y": 2}),
        result(3, acc=None, x="text"),
        result(4, acc="bad"),
    ]
    storage.trial("a_00000", *reports)
    tables = read(storage)
    assert [row.get("x") for row in rows(tables.history)] == [1, None, "text", None]
    assert [row.get("x/y") for row in rows(tables.history)] == [None, 2, None, None]
    assert tables.trials["best_value"].tolist() == [2.5]
    assert tables.trials["acc"].tolist() == ["bad"]


def test_nan_is_never_the_best_value_but_may_be_the_last(storage: Storage) -> None:
    storage.trial("a_00000", result(1, acc=NAN), result(2, acc=0.3), result(3, acc=NAN))
    storage.trial("a_00001", result(1, acc=NAN))
    storage.trial("a_00002", result(1, acc=0.2), result(2, acc=float("-inf")))
    tables = read(storage)
    assert tables.trials["best_value"].tolist() == pytest.approx([0.3, NAN, 0.2], nan_ok=True)
    assert tables.trials["acc"].tolist() == pytest.approx([NAN, NAN, float("-inf")], nan_ok=True)
    best = best_trial(tables.trials, search())
    assert best is not None
    assert (best["trial_id"], best["acc"], best["best_iteration"]) == ("a_00000", None, 2)
    assert type(best["best_iteration"]) is int


def test_metrics_and_config_keys_never_overwrite_other_columns(storage: Storage) -> None:
    names = ["status", "seconds", "error", "config/lr", "metric/status", "best_value"]
    metrics = dict.fromkeys(names, 42)
    storage.trial("a_00000", result(1, acc=0.5, **metrics), config={"lr": 0.1, "status": "x"})
    tables = read(storage)
    (trial,) = rows(tables.trials)
    assert (trial["status"], trial["seconds"], trial["config/lr"], trial["best_value"]) == (
        "INTERRUPTED",
        2.0,
        0.1,
        0.5,
    )
    assert trial["config/status"] == "x"
    renamed = ["metric/metric/status", "metric/seconds", "metric/error", "metric/config/lr", "metric/status"]
    for table in (tables.trials, tables.history):
        assert [table[name].tolist() for name in [*renamed, "metric/best_value"]] == [[42]] * 6


def test_a_search_by_a_colliding_metric_or_by_time_still_finds_its_best(storage: Storage) -> None:
    storage.trial("a_00000", result(1, seconds=5.0), result(2, seconds=3.0))
    assert read(storage, metric="seconds", mode="min").trials["best_value"].tolist() == [3.0]
    assert read(storage, metric="time_total_s", mode="min").trials["best_value"].tolist() == [2.0]
    assert read(storage, metric="training_iteration").trials["best_value"].tolist() == [2]


def test_config_columns_come_in_order_of_the_first_trial_that_has_them(storage: Storage) -> None:
    storage.trial("a_00001", result(1, acc=1.0), config={"z": 1, "new": 2, "a": 3})
    storage.trial("a_00000", result(1, acc=1.0), config={"z": 1, "a": 2})
    assert list(read(storage).trials.columns)[2:6] == ["config/z", "config/a", "config/new", "acc"]


def test_numbers_too_large_for_a_machine_word_are_kept(storage: Storage) -> None:
    storage.trial("a_00000", result(1, acc=0.5, seed=2**70), config={"seed": 2**70})
    storage.trial("a_00001", result(1, acc=0.5, seed=None), config={"seed": 1})
    assert [row.get("seed") for row in rows(read(storage).history)] == [2**70, None]
    assert read(storage).trials["config/seed"].tolist() == [2**70, 1]


# -------------------------------------------------------------------------------------- statuses


def test_a_run_that_is_not_live_has_interrupted_trials(storage: Storage) -> None:
    for trial_id in ("a_00001", "a_00002", "a_00004"):
        storage.trial(trial_id, result(1, acc=0.5))
    storage.trial("a_00005")
    (storage.path / "a_00005" / "result.json").unlink()
    statuses = {"a_00001": "RUNNING", "a_00002": "PENDING", "a_00003": "PENDING", "a_00004": "PAUSED"}
    storage.state(**statuses)
    live = read(storage, live=True)
    # the state is saved before a trial starts: one that has reported since is at work
    assert status_of(live) == statuses | {"a_00002": "RUNNING", "a_00005": "PENDING"}
    assert set(live.trials["ended"]) == {""}
    assert status_of(read(storage)) == {
        "a_00001": "INTERRUPTED",
        "a_00002": "INTERRUPTED",
        "a_00003": "PENDING",
        "a_00004": "INTERRUPTED",
        "a_00005": "PENDING",
    }


def test_folders_newer_than_the_state_count(storage: Storage) -> None:
    storage.trial("a_00000", result(1, acc=0.5), result(2, acc=0.5, done=True))
    storage.trial("a_00001", result(1, acc=0.5))
    storage.trial("a_00002", result(1, acc=0.5, done=True))
    storage.state(a_00000="RUNNING", a_00002="ERROR")
    assert status_of(read(storage, live=True)) == {
        "a_00000": "TERMINATED",
        "a_00001": "RUNNING",
        "a_00002": "ERROR",
    }
    assert status_of(read(storage)) == {"a_00000": "TERMINATED", "a_00001": "INTERRUPTED", "a_00002": "ERROR"}


def test_a_trial_that_only_the_state_knows_has_a_row_with_what_can_be_shown(storage: Storage) -> None:
    pickled = {"_type": "CLOUDPICKLE_FALLBACK", "value": "8005"}
    config = {
        "lr": 0.3,
        "data": pickled,
        "fn": ["__fn_ph", "7c0a5c83"],
        "sizes": [1, pickled],
        "opt": {"name": "sgd"},
    }
    with zipfile.ZipFile(storage.path / "state.zip", "w") as archive:
        archive.writestr("experiment_state-1.json", state_json(static("a_00000", "PENDING", config)))
    (trial,) = rows(read(storage).trials)
    expected = {
        "config/lr": 0.3,
        "config/sizes": "[1, null]",
        "config/opt/name": "sgd",
        "iterations": 0,
        "seconds": 0.0,
    }
    assert trial == {"trial_id": "a_00000", "status": "PENDING"} | expected


def test_a_status_of_a_later_ray_is_passed_on(storage: Storage) -> None:
    storage.state(a_00000="HIBERNATING")
    assert status_of(read(storage)) == {"a_00000": "HIBERNATING"}


@pytest.mark.parametrize("newest_first", [True, False])
def test_the_newest_member_of_the_state_counts(storage: Storage, newest_first: bool) -> None:
    members = [("2026-11-23_23-59-59", "ERROR"), ("2026-11-24_00-02-15", "TERMINATED")]
    for time, status in sorted(members, reverse=newest_first):
        storage.state(member=f"experiment_state-{time}.json", a_00000=status)
    assert status_of(read(storage)) == {"a_00000": "TERMINATED"}


def damage_tail(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def damage_content(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)


def damage_word(path: Path) -> None:
    """Leave valid JSON behind: only the checksum tells, and that comes after all that we need not read."""
    with zipfile.ZipFile(path, "w") as archive:
        whole = state_json(static("a_00000", "ERROR")).replace('"stats": {}', f'"stats": "{"x" * 3_000_000}"')
        archive.writestr(MEMBER, whole)
    path.write_bytes(path.read_bytes().replace(b"ERROR", b"OTHER"))


def without_member(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.json", "{}")


def half_a_member(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("experiment_state-1.json", state_json(static("a_00000", "ERROR"))[:-500])


def a_trial_of_numbers(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("experiment_state-1.json", '{"trial_data": [[1, 2]]}')


DAMAGES = [damage_tail, damage_content, damage_word, without_member, half_a_member, a_trial_of_numbers]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_gives_way_to_another(storage: Storage, damage: Callable[[Path], None]) -> None:
    storage.state(name="state.prev.zip", a_00000="TERMINATED")
    newest = storage.state(a_00000="ERROR")
    damage(newest)
    tables = read(storage)
    assert status_of(tables) == {"a_00000": "TERMINATED"}
    assert tables.report.malformed_files == (newest,)
    assert tables.report.warning() == "damaged: storage/state.zip"


def test_without_any_state_the_folders_speak(storage: Storage) -> None:
    storage.trial("a_00000", result(1, acc=0.5))
    (storage.path / "state.zip").write_bytes(b"PK")
    tables = read(storage)
    assert status_of(tables) == {"a_00000": "INTERRUPTED"}
    assert tables.report.malformed_files == (storage.path / "state.zip",)


def test_plain_ray_state_files_are_read_newest_first_and_in_pieces(storage: Storage) -> None:
    (storage.path / "experiment_state-2026-11-23.json").write_text(state_json(static("a_00000", "ERROR")))
    many = [static(f"a_{number:05d}", "TERMINATED", {"text": "x" * 3000}) for number in range(700)]
    (storage.path / "experiment_state-2026-11-24.json").write_text(state_json(*many))
    tables = read(storage)
    assert len(tables.trials) == 700  # three megabytes: more than one piece
    assert set(status_of(tables).values()) == {"TERMINATED"}


# --------------------------------------------------------------------------- errors, checkpoints

TRACEBACK = """Failure # 1 (occurred at 2026-11-24_00-02-19)
\x1b[36mray::ImplicitFunc.train()\x1b[39m (pid=5593, ip=192.0.2.2, actor_id=c4d9, repr=train)
           ^^^^^^^^^^^^
  File "/env/lib/python3.11/site-packages/ray/tune/trainable/function_trainable.py", line 249, in run
    output = fn()
             ^^^^
  File "/home/me/my hpc_tune/runs/r/code/train.py", line 31, in train
    model(x)
  File "/env/lib/python3.11/site-packages/torch/nn/modules/module.py", line 99, in forward
    raise ValueError(message)
ValueError: lr too big
"""
DEAD = """Failure # 1 (occurred at 2026-11-24_00-08-16)
The actor died unexpectedly before finishing this task.
\tclass_name: with_resources.<locals>.ResourceTrainable
\tpid: 11785
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR.
"""


def test_an_error_is_one_line_with_the_place_in_the_users_code(storage: Storage) -> None:
    folder = storage.trial("a_00000", result(1, acc=0.5))
    (folder / "error.txt").write_text(TRACEBACK)
    storage.state(a_00000="ERROR")
    assert read(storage).trials["error"].tolist() == ["ValueError: lr too big (train.py:31)"]


def test_a_trial_that_failed_before_it_wrote_anything_else_has_its_error(storage: Storage) -> None:
    (storage.path / "a_00000").mkdir()
    (storage.path / "a_00000" / "error.txt").write_text(TRACEBACK)
    storage.state(a_00000="ERROR", a_00001="ERROR")
    assert read(storage).trials["error"].tolist() == ["ValueError: lr too big (train.py:31)", ""]


def test_the_error_of_a_trial_that_succeeded_later_is_not_shown(storage: Storage) -> None:
    folder = storage.trial("a_00000", result(1, acc=0.5), result(2, acc=0.5, done=True))
    (folder / "error.txt").write_text(TRACEBACK)
    storage.state(a_00000="RUNNING")
    assert rows(read(storage).trials)[0].get("error") is None
    assert status_of(read(storage)) == {"a_00000": "TERMINATED"}


def test_only_the_end_of_a_large_error_file_is_read(storage: Storage) -> None:
    folder = storage.trial("a_00000", result(1, acc=0.5))
    (folder / "error.txt").write_text("é" * 100_001 + "\n" + TRACEBACK)
    storage.state(a_00000="ERROR")
    assert read(storage).trials["error"].tolist() == ["ValueError: lr too big (train.py:31)"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            TRACEBACK + TRACEBACK.replace("# 1", "# 2").replace("lr", "wd"),
            "ValueError: wd too big (train.py:31)",
        ),
        (TRACEBACK.replace("lr too big", "lr\n  is\ntoo big"), "ValueError: lr is too big (train.py:31)"),
        (
            TRACEBACK.replace("/home/me/my hpc_tune/runs/r/code/train.py", "<string>"),
            "ValueError: lr too big (module.py:99)",
        ),
        (
            DEAD,
            "The actor died unexpectedly before finishing this task. "
            "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR.",
        ),
        ("KeyError: 'lr'\n", "KeyError: 'lr'"),
        (
            '  File "train.py", line 3\n    def (:\n        ^\nSyntaxError: invalid syntax\n',
            "SyntaxError: invalid syntax (train.py:3)",
        ),
        ("", ""),
        ("\n   \n", ""),
    ],
    ids=["last failure", "several lines", "no user code", "dead worker", "bare", "syntax", "empty", "blank"],
)
def test_error_line(text: str, line: str) -> None:
    assert error_line(text) == line


def test_a_long_error_is_cut_before_its_place() -> None:
    line = error_line(TRACEBACK.replace("lr too big", "x" * 5000))
    assert line.endswith("x… (train.py:31)")
    assert len(line) == LONGEST + len(" (train.py:31)")


def test_a_checkpoint_that_no_result_names_was_still_being_copied(storage: Storage) -> None:
    folder = storage.trial(
        "a_00000", *(result(n, acc=0.5, checkpoint_dir_name=f"checkpoint_{n:06d}") for n in (8, 9, 10))
    )
    for number in (8, 9, 11):
        (folder / f"checkpoint_{number:06d}").mkdir()
        (folder / f"checkpoint_{number:06d}" / "model.pt").touch()
    assert read(storage).trials["checkpoint"].tolist() == ["storage/a_00000/checkpoint_000009"]


def test_a_class_trainable_has_its_newest_checkpoint_that_is_not_empty(storage: Storage) -> None:
    folder = storage.trial("a_00000", result(1, acc=0.5))
    for number in (999999, 1000000, 1000001):
        (folder / f"checkpoint_{number:06d}").mkdir()
    (folder / "checkpoint_000009").touch()
    for number in (999999, 1000000):
        (folder / f"checkpoint_{number:06d}" / "model.pt").touch()
    (folder / "checkpoint_tmp0000").mkdir()
    assert read(storage).trials["checkpoint"].tolist() == ["storage/a_00000/checkpoint_1000000"]


# --------------------------------------------------------------------------------- best, summary


def test_the_first_of_equal_trials_is_the_best_in_either_direction(storage: Storage) -> None:
    for number, value in enumerate([0.2, 0.9, 0.9, 0.2]):
        storage.trial(f"a_{number:05d}", result(1, acc=value), result(2, acc=value), config={"lr": number})
    best = best_trial(read(storage).trials, search())
    worst = best_trial(read(storage, mode="min").trials, search(mode="min"))
    assert best is not None
    assert worst is not None
    assert (best["trial_id"], best["config/lr"], best["best_iteration"]) == ("a_00001", 1, 1)
    assert worst["trial_id"] == "a_00000"
    assert json.dumps(best)  # plain values


def test_the_best_trial_is_also_found_in_a_table_read_back(storage: Storage, tmp_path: Path) -> None:
    storage.trial("a_00000", result(1, acc=NAN))
    storage.trial("a_00001", result(1, acc=0.5))
    written(tmp_path, read(storage))
    best = best_trial(pandas.read_csv(tmp_path / "trials.csv"), search())
    assert best is not None
    assert best["trial_id"] == "a_00001"


def test_the_summary_counts_and_adds_up(storage: Storage) -> None:
    config = {"lr": 0.1, "opt": {"n": "sgd"}}
    storage.trial("a_00000", result(1, acc=0.5), result(2, acc=0.9, done=True), config=config)
    storage.trial("a_00001", result(1, acc=0.7), result(1, acc=0.6), "{half", config={"lr": 0.2})
    storage.state(a_00001="ERROR", a_00002="PENDING")
    summary = summarize(read(storage).reading, search(), run="fm-1", wall_seconds=100.5, attempts=3)
    assert summary == {
        "run": "fm-1",
        "metric": "acc",
        "mode": "max",
        "trials": 3,
        "terminated": 1,
        "error": 1,
        "interrupted": 0,
        "running": 0,
        "paused": 0,
        "pending": 1,
        "best_trial": "a_00000",
        "best_value": 0.9,
        "best_iteration": 2,
        "config/lr": 0.1,
        "config/opt/n": "sgd",
        "wall_seconds": 100.5,
        "trial_seconds": 6.0,
        "cpu_hours": pytest.approx(6 * 2 / 3600),
        "gpu_hours": pytest.approx(6 * 0.5 / 3600),
        "attempts": 3,
        "repeated_rows": 1,
        "malformed_lines": 1,
    }
    assert list(summary)[10:15] == [
        "best_trial",
        "best_value",
        "best_iteration",
        "config/lr",
        "config/opt/n",
    ]


# --------------------------------------------------------------------------------------- writing


def written(directory: Path, tables: Tables) -> dict[str, list[dict[str, str]]]:
    """Write the tables and read them with another reader than pandas."""
    summary = summarize(tables.reading, search(), run="r", wall_seconds=None, attempts=1)
    paths = write_tables(directory, tables.reading, summary)
    assert [path.name for path in paths] == ["trials.csv", "history.csv", "summary.csv"]
    # newline="" and StringIO: the csv module sees the line ends as they are
    texts = {path.stem: StringIO(path.read_bytes().decode(), newline="") for path in paths}
    return {name: list(csv.DictReader(text)) for name, text in texts.items()}


TEXTS = [
    "a,b",
    'say "hi"',
    "two\nlines",
    "bare\rreturn",
    "dos\r\n",
    "Zoë 试验 🎉",
    "line\u2028end",
    " spaces ",
    "=1+1",
    "'",
]


@pytest.mark.parametrize("text", [*TEXTS, "NA", "nul\0byte"])
def test_any_text_survives_the_round_trip(storage: Storage, tmp_path: Path, text: str) -> None:
    raw = json.dumps({"trial_id": "a_00000"} | result(1, acc=0.5, note=text), ensure_ascii=False) + "\n"
    storage.trial("a_00000", raw, config={"name": text, text: 1})
    tables = read(storage)
    cells = written(tmp_path, tables)
    assert [row["note"] for row in cells["history"]] == [text]
    (trial,) = cells["trials"]
    assert (trial["config/name"], trial["note"], trial[f"config/{text}"]) == (text, text, "1")
    assert cells["summary"][0]["config/name"] == text
    if "\0" not in text:
        back = pandas.read_csv(tmp_path / "history.csv", keep_default_na=False)
        assert back["note"].tolist() == [text]


def test_a_carriage_return_in_a_name_survives(storage: Storage, tmp_path: Path) -> None:
    storage.trial("a_00000", result(1, acc=0.5), config={"a\rb": 1})
    assert written(tmp_path, read(storage))["trials"][0]["config/a\rb"] == "1"


def test_a_lone_surrogate_is_escaped(storage: Storage, tmp_path: Path) -> None:
    storage.trial("a_00000", result(1, acc=0.5, **{"file\udcff": "name\udcff"}), config={"path": "x\udcff"})
    cells = written(tmp_path, read(storage))
    assert cells["trials"][0]["config/path"] == "x\\udcff"
    assert cells["history"][0]["file\\udcff"] == "name\\udcff"


def test_numbers_survive_the_round_trip_to_the_last_bit(storage: Storage, tmp_path: Path) -> None:
    values = [random.Random(1).uniform(-1, 1) * 10.0**exponent for exponent in range(-300, 300, 17)]
    storage.trial("a_00000", *(result(n, acc=value) for n, value in enumerate([*values, NAN, float("inf")])))
    cells = [row["acc"] for row in written(tmp_path, read(storage))["history"]]
    assert [float(cell) for cell in cells[:-2]] == values
    assert cells[-2:] == ["", "inf"]


def old_tables(directory: Path) -> dict[str, str]:
    for name in ("trials.csv", "history.csv", "summary.csv"):
        (directory / name).write_text(f"the old {name}")
    return contents(directory)


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}


@pytest.fixture
def many_rows(storage: Storage) -> Tables:
    storage.trial("a_00000", *(result(n, acc=random.random()) for n in range(3000)))
    return read(storage)


def write(directory: Path, tables: Tables) -> list[Path]:
    reading = tables.reading
    return write_tables(directory, reading, summarize(reading, search(), run="r", wall_seconds=1.0, attempts=1))


@contextmanager
def largest_file(limit: int) -> Iterator[None]:
    """Let writing fail half-way, as on a full disk, without one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_table_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path, many_rows: Tables) -> None:
    target = tmp_path / "run"
    target.mkdir()
    before = old_tables(target)
    with largest_file(20_000), pytest.raises(RunError, match=r"cannot write .*history\.csv: File too large"):
        write(target, many_rows)
    after = contents(target)
    assert after.keys() == before.keys()  # no temporary file is left
    assert after["history.csv"] == "the old history.csv"
    assert after["trials.csv"].startswith("trial_id,")


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path]).returncode:
        pytest.skip("needs to mount a small file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def test_a_full_disk_is_named_and_nothing_is_left_behind(tmp_path: Path, many_rows: Tables) -> None:
    with mounted(tmp_path / "small", "size=64k") as disk:
        before = old_tables(disk)
        with pytest.raises(RunError, match=r"history\.csv: No space left on device") as caught:
            write(disk, many_rows)
        after = contents(disk)
    assert caught.value.hint is not None
    assert "free some space" in caught.value.hint
    assert after.keys() == before.keys()
    assert after["history.csv"] == "the old history.csv"


def test_a_read_only_disk_is_named(tmp_path: Path, many_rows: Tables) -> None:
    with mounted(tmp_path / "small", "size=64k") as disk:
        before = old_tables(disk)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(RunError, match=r"trials\.csv: Read-only file system") as caught:
            write(disk, many_rows)
        assert contents(disk) == before
    assert caught.value.hint is not None
    assert "writable" in caught.value.hint


def test_a_directory_that_is_gone_is_a_run_error(tmp_path: Path, many_rows: Tables) -> None:
    with pytest.raises(RunError, match=r"gone/trials\.csv: No such file"):
        write(tmp_path / "gone", many_rows)


def test_a_storage_path_that_cannot_be_listed(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(RunError, match="storage: Permission denied"):
        read(storage)


def test_the_table_on_disk_is_replaced_in_one_step(
    tmp_path: Path, many_rows: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks while a table is written sees the old one, until the new one is on the disk."""
    target = tmp_path / "run"
    target.mkdir()
    old_tables(target)
    flushed: list[tuple[Path, dict[str, str]]] = []

    def look(descriptor: int) -> None:
        flushed.append((Path(f"/proc/self/fd/{descriptor}").readlink().parent, contents(target)))

    monkeypatch.setattr(os, "fsync", look)
    write(target, many_rows)
    assert [parent for parent, _ in flushed] == [target] * 3
    seen = flushed[1][1]
    assert seen["trials.csv"].startswith("trial_id,")
    assert (seen["history.csv"], seen["summary.csv"]) == ("the old history.csv", "the old summary.csv")
    assert contents(target).keys() == {"trials.csv", "history.csv", "summary.csv"}


# --------------------------------------------------------------------------------------- imports


def test_nothing_needs_ray_and_importing_needs_no_pandas(storage: Storage, tmp_path: Path) -> None:
    storage.trial("a_00000", result(1, acc=0.5))
    code = f"""
import sys
from pathlib import Path
from hpc_tune.results.tables import SearchInfo, read, summarize
from hpc_tune.results.csvfiles import write_tables
heavy = sorted({{"ray", "pandas", "numpy"}} & sys.modules.keys())
search = SearchInfo("acc", "max", 1, 0, False)
reading = read(Path({str(storage.path)!r}), search)
summary = summarize(reading, search, run="r", wall_seconds=1.0, attempts=1)
write_tables(Path({str(tmp_path)!r}), reading, summary)
print(heavy, sorted({{"ray", "pandas", "numpy"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout == "[] []\n", done.stderr
