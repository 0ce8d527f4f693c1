"""A population's member, trained again along its schedule through a kill of the driver, and scored."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.results.population import read_population
from tests.ray.conftest import Search, wait_until

pytestmark = pytest.mark.ray

TRAINABLE = """
import json, tempfile, time
from pathlib import Path
from ray import tune

def train(config):
    checkpoint = tune.get_checkpoint()
    state = json.loads(Path(checkpoint.path, "state.json").read_text()) if checkpoint else {"x": 0.0, "rates": []}
    while True:
        state = {"x": state["x"] + config["lr"] * config["scale"], "rates": [*state["rates"], config["lr"]]}
        time.sleep(config["seconds"])
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "state.json").write_text(json.dumps(state))
            tune.report({"score": state["x"]}, checkpoint=tune.Checkpoint.from_directory(folder))

def evaluate(config, checkpoint):
    return json.loads((checkpoint / "state.json").read_text())
"""
STEPS = 8
EXPERIMENT: dict[str, Any] = {
    "space": {"lr": {"uniform": [0.1, 1]}, "scale": {"uniform": [1, 2]}, "seconds": 0.1},
    "evaluate": "train.py:evaluate",
    "num_samples": 4,
    "seed": 3,
    "trial_scheduler": {
        "name": "pbt",
        "perturbation_interval": 2,
        "synch": True,
        "quantile_fraction": 0.5,
        "hyperparam_mutations": {"lr": {"uniform": [0.1, 1]}},
    },
    "stop": {"training_iteration": STEPS},
}


def scored(search: Search, run: Path, *options: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(search.call("evaluate", run.name, "--here", "--json", *options))["result"]
    return result


def test_a_replay_does_what_its_member_did_and_can_be_scored(search: Search) -> None:
    search.write(TRAINABLE, EXPERIMENT)
    search.run()
    source = search.directory
    population = read_population(source / "storage")
    member = population.exploits[-1].trial_id
    before = scored(search, source, "--trial", member)

    process = search.start("replay", source.name, member, "--here")
    wait_until(lambda: search.reported() >= 4 * STEPS + 5, what="the first change of the replay")
    search.kill_driver(process, signal.SIGKILL)
    (replay,) = (each for each in search.runs_dir.iterdir() if each != source)
    assert replay.name.startswith(f"search-replay-{member}-")
    search.call("resume", replay.name)
    after = scored(search, replay)
    assert after["checkpoint_iteration"] == before["checkpoint_iteration"] == STEPS
    assert after["metrics"]["rates"] == before["metrics"]["rates"], "each iteration had the rate that it had before"
    assert after["metrics"]["x"] == before["metrics"]["x"]
    assert len(set(after["metrics"]["rates"])) > 1

    from ray.tune.schedulers import PopulationBasedTrainingReplay

    policy = PopulationBasedTrainingReplay(str(source / "storage" / f"pbt_policy_{member}.txt"))
    lineage = [(each.source_iteration, each.after) for each in population.lineage(member)]
    assert lineage == policy._policy, "as Ray reads its log"
    shown = json.loads(search.call("status", source.name, "--json"))["followups"]
    assert [(each["kind"], each["state"]) for each in shown] == [("evaluate", "done"), ("replay", "done")]
