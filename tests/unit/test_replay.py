"""The schedule of a population's member, and the run that replays it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.errors import RunError
from hpc_tune.experiment.load import load_experiment
from hpc_tune.followup import FollowUp
from hpc_tune.operations.replay import _replay as planned
from hpc_tune.operations.replay import replay_here
from hpc_tune.results.population import Exploit, Population, read_population
from hpc_tune.run import RunDir
from tests.unit.made_results import MadeTrials

PBT: dict[str, Any] = {
    "name": "pbt",
    "perturbation_interval": 2,
    "hyperparam_mutations": {"opt": {"lr": {"uniform": [0.01, 1]}}},
}


@pytest.fixture
def population(project: Any, runs_dir: Path) -> RunDir:
    """Of three members the last took over the second's checkpoint, which had gone on from the first's."""
    space = {"opt": {"lr": {"uniform": [0.01, 1]}, "name": "sgd"}, "width": {"choice": [8, 16]}, "fixed": [1, "two"]}
    run: RunDir = project.create_run(
        runs_dir,
        name="my-pbt",
        space=space,
        num_samples=3,
        trial_scheduler=PBT,
        trial={"cpus": 2, "gpus": 0.5},
        allocation={"nodes": 4, "gpus_per_node": 4},
        stop={"training_iteration": 8},
    )
    trials = MadeTrials(run)
    for number, value in enumerate((0.5, 0.6, 0.9)):
        trials.add(f"t_{number}", [value / 2, value], config=config(0.1), tag=f"{number}_lr")
    lines = [
        ("1_lr", "0_lr", 2, 2, config(0.1), config(0.2)),
        ("2_lr", "0_lr", 2, 2, config(0.1), config(0.7)),
        ("0_lr", "2_lr", 4, 4, config(0.7), config(0.8)),
        ("2_lr", "1_lr", 5, 4, config(0.2), config(0.4)),
    ]
    (run.storage / "pbt_global.txt").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def config(lr: float) -> dict[str, Any]:
    return {"opt": {"lr": lr, "name": "sgd"}, "width": 16, "fixed": [1, "two"]}


def test_the_lineage_goes_back_to_the_first_ancestor(population: RunDir) -> None:
    found = read_population(population.storage)
    steps = [(each.trial_id, each.source_id, each.source_iteration) for each in found.lineage("t_2")]
    assert steps == [("t_1", "t_0", 2), ("t_2", "t_1", 4)]
    assert [each.trial_id for each in found.lineage("t_1")] == ["t_1"]
    assert found.lineage("unknown") == []


def test_a_config_with_which_nobody_trained_is_left_out() -> None:
    first = Exploit("b", "a", 4, 4, {}, {"lr": 1}, {"lr": 2})
    second = Exploit("c", "b", 4, 4, {}, {"lr": 2}, {"lr": 3})
    (step,) = Population((first, second)).lineage("c")
    assert (step.source_id, step.source_iteration, step.before, step.after) == ("a", 4, {"lr": 1}, {"lr": 3})


def test_a_replay_is_the_same_experiment_with_one_trial_and_a_schedule(population: RunDir) -> None:
    found = planned(population, None)
    experiment = found.loaded.experiment
    assert (found.trial_id, experiment.name, experiment.num_samples) == ("t_2", "my-pbt-replay-t_2", 1)
    assert experiment.space == config(0.1)
    assert [(each.after, each.config) for each in experiment.trial_scheduler.schedule] == [
        (2, {"opt": {"lr": 0.2}}),
        (4, {"opt": {"lr": 0.4}}),
    ]
    assert experiment.stop == {"training_iteration": 8}
    asked = experiment.allocation
    assert (asked.nodes, asked.cpus_per_node, asked.gpus_per_node) == (1, 2, 1)
    created = found.create()
    again = load_experiment(created.experiment_file, created.record()["overrides"], folder=created.code)
    assert again.experiment == experiment, "a resume finds it as it was"
    assert not any("fixed" in text for text in found.overrides), "what nobody searched stays as the file has it"


@pytest.mark.parametrize(
    ("trial", "message"), [("t_9", "there is no trial 't_9'"), ("0", "t_0 in my-pbt-.* never went on")]
)
def test_a_trial_without_a_policy(population: RunDir, trial: str, message: str) -> None:
    (population.storage / "pbt_global.txt").write_text("")
    with pytest.raises(Exception, match=message):
        replay_here(population, trial)
    assert FollowUp.of_run(population.path) == []


def test_a_trial_that_is_still_at_work(population: RunDir) -> None:
    trials = MadeTrials(population)
    trials.add("t_3", [0.1], config=config(0.1), status="RUNNING", tag="3_lr")
    with population.locked(), pytest.raises(RunError, match=r"t_3 of .* is still at work") as caught:
        replay_here(population, "t_3")
    assert f"--after {population.name}" in str(caught.value.hint)


def test_a_run_without_a_population(project: Any, runs_dir: Path) -> None:
    run = project.create_run(runs_dir, trial_scheduler={"name": "asha"})
    with pytest.raises(RunError, match="no population based training: its trial scheduler is asha"):
        replay_here(run)
