"""The tables of what plain Ray Tune leaves on disk, against what Ray itself says about it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.results.csvfiles import write_tables
from hpc_tune.results.state import read_state
from hpc_tune.results.tables import SearchInfo, Tables, best_trial, read_tables, summarize

pytestmark = pytest.mark.ray

SEARCH = SearchInfo(metric="val/acc", mode="max", trial_cpus=1, trial_gpus=0, live=False)

# Three trials: one goes through, one fails once and goes on from its checkpoint, one fails for good.
SCRIPT = """
import json, sys, tempfile
from pathlib import Path
import ray
from ray import tune

out, temp = Path(sys.argv[1]), sys.argv[2]

def train(config):
    done, checkpoint = 0, tune.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            done = int(Path(folder, "done").read_text())
    for epoch in range(done, 4):
        failed_before = out / "failed"
        if epoch == 2 and config["opt"]["lr"] == 0.3 and not failed_before.exists():
            failed_before.touch()
            raise RuntimeError("once")
        if epoch == 2 and config["opt"]["lr"] == 0.5:
            raise ValueError("lr too big:\\n  take less")
        acc = float("nan") if epoch == 1 else epoch * config["opt"]["lr"]
        metrics = {"val": {"acc": acc}, "epoch": epoch}
        if epoch == 3:
            metrics["late"] = "é, \\"x\\""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "done").write_text(str(epoch + 1))
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))

ray.init(num_cpus=2, include_dashboard=False, _temp_dir=temp, log_to_driver=False)
grid = tune.Tuner(
    tune.with_resources(train, {"cpu": 1}),
    param_space={"opt": {"lr": tune.grid_search([0.1, 0.3, 0.5])}, "sizes": [1, 2], "seed": None, "key": max},
    tune_config=tune.TuneConfig(metric="val/acc", mode="max", reuse_actors=True),
    run_config=tune.RunConfig(
        storage_path=str(out),
        name="storage",
        failure_config=tune.FailureConfig(max_failures=1),
        checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
    ),
).fit()
said = {
    each.metrics["trial_id"]: {
        "iterations": each.metrics_dataframe["training_iteration"].tolist(),
        "acc": each.metrics_dataframe["val/acc"].tolist(),
        "seconds": each.metrics["time_total_s"],
        "lr": each.config["opt"]["lr"],
        "last": each.metrics["val"]["acc"],
        "node": each.metrics["hostname"],
        "checkpoint": each.checkpoint.path,
        "failed": each.error is not None,
    }
    for each in grid
}
best = grid.get_best_result(scope="all").metrics["trial_id"]
(out / "said.json").write_text(json.dumps({"trials": said, "best": best}))
"""


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the storage of a real search, and ``said.json``: Ray's own view of it."""
    directory = tmp_path_factory.mktemp("run")
    (directory / "script.py").write_text(SCRIPT)
    environment = dict(os.environ, RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    # Ray's socket paths must stay below 108 bytes, pytest's directories are long
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as temp:
        command = [sys.executable, str(directory / "script.py"), str(directory), temp]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


@pytest.fixture
def said(run: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((run / "said.json").read_text())
    return value


@pytest.fixture
def tables(run: Path) -> Tables:
    return read_tables(run / "storage", SEARCH)


def test_each_trial_is_as_ray_says(run: Path, said: dict[str, Any], tables: Tables) -> None:
    assert tables.trials["trial_id"].tolist() == sorted(said["trials"])
    assert tables.trials["status"].tolist() == ["TERMINATED", "TERMINATED", "ERROR"]
    for row in tables.trials.to_dict("records"):
        ray = said["trials"][row["trial_id"]]
        assert row["config/opt/lr"] == ray["lr"]
        assert row["val/acc"] == pytest.approx(ray["last"], nan_ok=True)
        assert row["node"] == ray["node"]
        assert row["seconds"] == pytest.approx(ray["seconds"])
        assert run / row["checkpoint"] == Path(ray["checkpoint"])
        assert bool(row["error"]) == ray["failed"]
        assert row["started"] <= row["ended"]


def test_the_history_is_as_ray_says(said: dict[str, Any], tables: Tables) -> None:
    for trial_id, history in tables.history.groupby("trial_id"):
        ray = said["trials"][trial_id]
        assert history["training_iteration"].tolist() == ray["iterations"]
        assert history["val/acc"].tolist() == pytest.approx(ray["acc"], nan_ok=True)
    assert len(tables.history) == 4 + 4 + 2


def test_columns_are_the_experiments_own(tables: Tables) -> None:
    names = list(tables.trials.columns)
    assert sorted(names[2:6]) == ["config/key", "config/opt/lr", "config/seed", "config/sizes"]
    assert names[6:9] == ["val/acc", "epoch", "late"]
    assert names[9] == "best_value"
    assert set(tables.trials["config/sizes"]) == {"[1, 2]"}
    assert tables.trials["late"].tolist()[:2] == ['é, "x"'] * 2


def test_the_error_is_the_last_one_and_only_of_the_trial_that_failed(tables: Tables) -> None:
    errors = tables.trials["error"].tolist()
    assert errors[:2] == ["", ""]
    assert errors[2].startswith("ValueError: lr too big: take less (script.py:")


def test_the_best_trial_is_rays(said: dict[str, Any], tables: Tables) -> None:
    best = best_trial(tables.trials, SEARCH)
    assert best is not None
    assert best["trial_id"] == said["best"]
    assert best["best_value"] == pytest.approx(3 * 0.3)
    assert best["best_iteration"] == 4


def test_the_tables_are_written(run: Path, tables: Tables) -> None:
    summary = summarize(tables.reading, SEARCH, run="real", wall_seconds=20.0, attempts=1)
    paths = write_tables(run, tables.reading, summary)
    assert [len(path.read_text().splitlines()) for path in paths] == [4, 11, 2]
    assert (summary["terminated"], summary["error"], summary["malformed_lines"]) == (2, 1, 0)
    assert math.isclose(summary["cpu_hours"], tables.trials["seconds"].sum() / 3600)


def test_the_state_of_a_real_run_is_understood(run: Path, said: dict[str, Any]) -> None:
    state = read_state(run / "storage")
    assert state.unreadable == ()
    assert {trial.trial_id for trial in state.trials} == set(said["trials"])
    assert all((run / "storage" / str(trial.folder) / "result.json").is_file() for trial in state.trials)
    assert {trial.config["opt"]["lr"] for trial in state.trials} == {0.1, 0.3, 0.5}
    assert all(trial.config["key"] is None for trial in state.trials)  # a function is not unpickled
