"""Populations of experiments/ over four nodes; ASHA is with the other tests of submit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.sandbox.login import ATTEMPT_SECONDS, Login, Submitted, read_table

pytestmark = [pytest.mark.slurm, pytest.mark.experiment]

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FOUR_NODES = ("--nodes=4", "--gpus-per-node=1")


def copied(user: Login, name: str) -> Path:
    """Return a copy of an experiment's folder in the user's home."""
    pytest.importorskip("mlxtend")
    return Path(shutil.copytree(EXPERIMENTS / name, user.home / name))


def rows_of(submitted: Submitted) -> list[dict[str, str]]:
    assert submitted.wait(2 * ATTEMPT_SECONDS)["state"] == "completed", submitted.logs()
    rows = read_table(submitted.run.path, "trials")
    assert {row["status"] for row in rows} == {"TERMINATED"}
    return rows


def test_populations_run_over_four_nodes_side_by_side(user: Login) -> None:
    # so that none ends before the 20th iteration, or is through before the others have begun
    changes = ("stop.training_iteration=20", "stop.mean_accuracy=1.1", "trial_scheduler.synch=true", "seed=1")
    sets = [word for change in changes for word in ("--set", change)]
    pbt = user.submit(copied(user, "mnist_convnet"), "pbt.toml", *FOUR_NODES, *sets)
    dcgan = user.submit(copied(user, "dcgan"), "smoke.toml", *FOUR_NODES)
    members = rows_of(pbt)
    assert [row["iterations"] for row in members] == ["20"] * 4
    assert max(float(row["best_value"]) for row in members) > 0.5
    assert (pbt.run.storage / "pbt_global.txt").exists(), "nobody took over another's checkpoint"
    assert [row["iterations"] for row in rows_of(dcgan)] == ["5", "5"]
    assert list(dcgan.run.storage.glob("*/checkpoint_*/digits.png"))
