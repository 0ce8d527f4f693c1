"""A large search as its driver writes it, without training anything.

It is written by the driver's own log of results, trial by trial, with Ray's own trials, and their states as Ray saves
them.
"""

from __future__ import annotations

import json
import math
import random
import zipfile
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

AT_WORK = 16  # trials that report between two collects
START = 1_795_478_500.0
EXPERIMENT = {
    "name": "large",
    "trainable": "train.py:train",
    "metric": "mean_accuracy",
    "mode": "max",
    "space": {"lr": {"loguniform": [1e-4, 1e-1]}, "hidden": {"randint": [16, 513]}, "momentum": {"choice": [0.8, 0.9]}},
}


def make_run(directory: Path, trials: int, iterations: int) -> Path:
    """Write the run of a search of so many trials, all but the last ones finished."""
    from hpc_tune.experiment.load import load_experiment
    from hpc_tune.run import RunDir

    project = directory / "project"
    project.mkdir(parents=True)
    (project / "train.py").write_text("def train(config):\n    ...\n")
    (project / "search.json").write_text(json.dumps(EXPERIMENT | {"num_samples": trials}))
    loaded = load_experiment(project / "search.json", [])
    run = RunDir.create(directory / "runs", loaded, overrides=[], seed=7, command=["hpc-tune", "run"])
    search = Search(run.storage, trials, iterations)
    for number in range(trials):
        search.run_trial(number)
    search.save_state()
    return run.path


class Search:
    """Trials that report what nobody computed, through the driver's own log."""

    def __init__(self, storage: Path, trials: int, iterations: int) -> None:
        from ray.train._internal.storage import StorageContext
        from ray.tune import PlacementGroupFactory
        from ray.tune.experiment import Trial

        from hpc_tune.runtime.results_log import ResultsLog

        self._context = StorageContext(str(storage.parent), experiment_dir_name=storage.name)
        factory = PlacementGroupFactory([{"CPU": 1}])
        self._new_trial = partial(Trial, "train", placement_group_factory=factory, stub=True)
        self._storage, self._iterations, self._first_at_work = storage, iterations, trials - AT_WORK
        self._log = ResultsLog(storage)
        self._random = random.Random(7)
        self._states: list[Any] = []

    def run_trial(self, number: int) -> None:
        """Report all iterations; a trial that is still at work has not ended."""
        trial = self.trial(number)
        self._log.on_trial_start(0, [], trial)
        ends = number < self._first_at_work
        for iteration in range(1, self._iterations + 1):
            self.report(trial, number, iteration, done=ends and iteration == self._iterations)
        trial.set_status("TERMINATED" if ends else "RUNNING")
        self._log.on_trial_complete(0, [], trial)
        self._states.append(trial.get_json_state())

    def trial(self, number: int) -> Any:
        """Make a trial as Tune's searchers do."""
        config = {
            "lr": 10 ** self._random.uniform(-4, -1),
            "hidden": self._random.randint(16, 512),
            "momentum": self._random.choice([0.8, 0.9]),
        }
        trial_id = f"a1b2c_{number:05d}"
        trial = self._new_trial(config=config, evaluated_params=config, trial_id=trial_id, storage=copy(self._context))
        trial.create_placement_group_factory()
        trial.relative_logdir = trial.storage.trial_dir_name = trial_id
        return trial

    def report(self, trial: Any, number: int, iteration: int, *, done: bool = False) -> None:
        """Report a result as a worker sends it to Tune."""
        took = 2.0 + self._random.random()
        loss = math.exp(-iteration / 20) + self._random.random() / 10
        result = {
            "train_loss": loss,
            "val_loss": loss * 1.1,
            "mean_accuracy": 100 * (1 - loss / 2),
            "epoch": iteration - 1,
            "timestamp": int(START + 150 * (number // AT_WORK) + took * iteration),
            "checkpoint_dir_name": None,
            "should_checkpoint": True,
            "done": done,
            "training_iteration": iteration,
            "trial_id": trial.trial_id,
            "date": "2026-11-24_00-02-19",
            "time_this_iter_s": took,
            "time_total_s": took * iteration,
            "pid": 4711,
            "hostname": f"iris-{169 + number % 4}",
            "node_ip": "192.0.2.2",
            "config": trial.config,
            "time_since_restore": took * iteration,
            "iterations_since_restore": iteration,
            "experiment_tag": f"{number}_hidden={trial.config['hidden']},lr={trial.config['lr']:.4f}",
        }
        trial.update_last_result(result)
        self._log.on_trial_result(0, [], trial, result)

    def save_state(self) -> None:
        """Save the state packed, as a live search does, and plain, as Ray looks for it."""
        plain = self._storage / "experiment_state-2026-11-24_00-01-40.json"
        plain.write_text(json.dumps({"trial_data": self._states, "runner_data": {}, "stats": {}}))
        with zipfile.ZipFile(self._storage / "state.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.write(plain, plain.name)


def report_once_more(storage: Path) -> None:
    """Have the trials that are at work report a result each."""
    for folder in sorted(path for path in storage.iterdir() if path.is_dir())[-AT_WORK:]:
        log = folder / "result.json"
        last = json.loads(log.read_bytes().splitlines()[-1])
        with log.open("a") as file:
            file.write(json.dumps(last | {"training_iteration": last["training_iteration"] + 1}) + "\n")
