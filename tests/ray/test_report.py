"""The reports of real searches: what Ray leaves behind is understood, and drawn in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hpc_tune
from hpc_tune.operations.report import view_of
from hpc_tune.operations.tables import gather
from hpc_tune.results.report.schedulers import rungs
from tests.chromium import check_drawn, show
from tests.ray.conftest import Search
from tests.unit.made_results import Page

pytestmark = pytest.mark.ray

TRAINABLE = """
import json, tempfile
from pathlib import Path
from ray import tune

def train(config):
    checkpoint = tune.get_checkpoint()
    step = json.loads(Path(checkpoint.path, "step.json").read_text()) if checkpoint else 0
    for step in range(step, 8):
        if config["lr"] > 0.95 and step == 1:
            raise ValueError("lr too big")
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step.json").write_text(json.dumps(step + 1))
            score = config["lr"] * (step + 1) + config["opt"]["momentum"]
            tune.report({"score": score}, checkpoint=tune.Checkpoint.from_directory(folder))
"""
SPACE = {"lr": {"uniform": [0, 1]}, "opt": {"momentum": {"uniform": [0, 1]}, "name": "sgd"}}


def _reported(search: Search, tmp_path: Path, **experiment: Any) -> Page:
    """Run a search, write its report, check that a browser draws all of it; return it as the browser has it."""
    search.write(TRAINABLE, {"space": SPACE, "seed": 3} | experiment)
    search.run()
    search.call("report", search.directory.name)
    report = search.directory / "report.html"
    shown = show(report, tmp_path / "profile")
    check_drawn(shown, set(Page(report).figures))
    dom = tmp_path / "dom.html"
    dom.write_text(shown.dom)
    page = Page(dom)
    (summary,) = search.table("summary")
    assert page.value("best-value") == summary["best_value"]
    assert page.section("best-trial").strip() == summary["best_trial"]
    return page


def test_a_search_with_asha(search: Search, tmp_path: Path) -> None:
    scheduler = {"name": "asha", "max_t": 8, "grace_period": 1, "reduction_factor": 2}
    page = _reported(search, tmp_path, num_samples=10, trial_scheduler=scheduler)
    assert {"rungs", "importance", "timeline"} <= set(page.figures)
    run = hpc_tune.load_run(search.directory)
    stopped = {trial_id for rung in rungs(view_of(gather(run.run))) for trial_id in rung.stopped}
    lengths = dict(zip(run.trials["trial_id"], run.trials["iterations"], strict=True))
    failed = set(run.trials["trial_id"][run.trials["status"] == "ERROR"])
    assert stopped == {trial_id for trial_id, length in lengths.items() if length < 8} - failed
    assert {lengths[trial_id] for trial_id in stopped} <= {1, 2, 4}


def test_a_search_with_optuna(search: Search, tmp_path: Path) -> None:
    page = _reported(search, tmp_path, num_samples=12, searcher={"name": "optuna"}, stop={"training_iteration": 3})
    assert {"importance", "parallel-coordinates", "hyperparameter-lr"} <= set(page.figures)
    best = max(search.table(), key=lambda row: float(row["best_value"] or 0))
    assert f"lr = {float(best['config/lr'])!r}" in page.section("config")


def test_a_population(search: Search, tmp_path: Path) -> None:
    scheduler = {
        "name": "pbt", "perturbation_interval": 2, "synch": True, "quantile_fraction": 0.5,
        "hyperparam_mutations": {"lr": {"uniform": [0, 0.9]}},
    }  # fmt: skip
    space = SPACE | {"lr": {"uniform": [0, 0.9]}}
    page = _reported(
        search, tmp_path, num_samples=3, space=space, trial_scheduler=scheduler, stop={"training_iteration": 6}
    )
    assert {"lineage", "schedule-lr"} <= set(page.figures)
    last = {row["trial_id"]: float(row["config/lr"]) for row in search.table()}
    for trial_id, rate in last.items():
        schedule = page.trace("schedule-lr", trial_id)
        assert schedule["x"][0] == 0
        assert schedule["y"][-1] == rate, "the last value of the schedule is that of the table"
