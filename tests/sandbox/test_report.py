"""The report of a population over four nodes that was interrupted once, as a browser shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chromium import check_drawn, show
from tests.sandbox.login import Login, read_table
from tests.unit.made_results import Page

pytestmark = pytest.mark.slurm

STEPS = 6
TRAINABLE = f"""
import json, tempfile, time
from pathlib import Path
from ray import tune
from hpc_tune import should_checkpoint

def train(config):
    checkpoint = tune.get_checkpoint()
    step = json.loads(Path(checkpoint.path, "step.json").read_text()) if checkpoint else 0
    for step in range(step + 1, {STEPS} + 1):
        time.sleep(0.5)
        metrics = {{"score": config["lr"] * step}}
        if not should_checkpoint(every=2):
            tune.report(metrics)
            continue
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step.json").write_text(json.dumps(step))
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))
"""
POPULATION: dict[str, Any] = {
    "space": {"lr": {"uniform": [0, 1]}},
    "num_samples": 4,
    "stop": {"training_iteration": STEPS},
    "trial": {"gpus": 1},
    "trial_scheduler": {
        "name": "pbt",
        "perturbation_interval": 2,
        "synch": True,
        "quantile_fraction": 0.5,
        "hyperparam_mutations": {"lr": {"uniform": [0, 1]}},
    },
}


def test_the_report_of_a_population_over_two_attempts(user: Login, tmp_path: Path) -> None:
    project = user.project(TRAINABLE, POPULATION, name="reported")
    first = user.submit(project, "--nodes=4", "--gpus-per-node=1", "--time=10m")
    first.until(lambda: len(list(first.run.storage.glob("*/checkpoint_*"))) >= 4, "the first checkpoints")
    assert user.call(["scancel", "--batch", "--signal=USR1", first.job_id]).returncode == 0
    assert first.wait()["state"] == "interrupted"
    said = json.loads(user.hpc_tune("resume", first.run.path, "--json").stdout)
    status = replace(first, job_id=said["job_id"]).wait()
    assert (status["state"], len(status["attempts"])) == ("completed", 2)

    user.hpc_tune("report", first.run.path)
    shown = show(first.run.path / "report.html", tmp_path / "profile")
    dom = tmp_path / "dom.html"
    dom.write_text(shown.dom)
    page = Page(dom)
    check_drawn(shown, set(page.figures))
    assert {"lineage", "schedule-lr", "timeline", "learning-curves", "best-over-time"} <= set(page.figures)
    (summary,) = read_table(first.run.path, "summary")
    assert page.value("best-value") == summary["best_value"]
    assert page.section("best-trial").strip() == summary["best_trial"]
    assert summary["attempts"] == "2"
    slots = page.figures["timeline"]["layout"]["yaxis"]["ticktext"]
    nodes = {row["node"] for row in read_table(first.run.path, "trials")}
    assert nodes <= {slot.partition(" ")[0] for slot in slots}
