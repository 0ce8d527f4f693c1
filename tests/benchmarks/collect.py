"""What the tables of a large search cost: ``hpc-tune collect``, again with little new, and Ray's own ``ResultGrid``.

The search is written as the driver writes it: by its own log of results, trial by trial, with Ray's own trials, and
their states as Ray saves them. All contenders read the same directory, one after another, each as a command of its
own: imports and all. Ray's makes no files; it reads every trial and makes its table of last results.

    python tests/benchmarks/collect.py [--trials N] [--iterations N] [--directory DIR] [--json FILE]

A directory is left as it is, and one that holds the search already is read again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

TRIALS, ITERATIONS = 10_000, 50
AT_WORK = 16  # trials that report between two collects
START = 1_795_478_500.0
EXPERIMENT = {
    "name": "large",
    "trainable": "train.py:train",
    "metric": "mean_accuracy",
    "mode": "max",
    "space": {"lr": {"loguniform": [1e-4, 1e-1]}, "hidden": {"randint": [16, 513]}, "momentum": {"choice": [0.8, 0.9]}},
}
RAYS_WAY = """\
import json, sys
from ray.tune import ExperimentAnalysis, ResultGrid
grid = ResultGrid(ExperimentAnalysis(sys.argv[1]))
table = grid.get_dataframe()
assert len(table) == len(grid) == int(sys.argv[2])
assert sum(len(each.metrics_dataframe) for each in grid) == int(sys.argv[3])
"""


@dataclass(frozen=True)
class Cost:
    """What a command took; CPU seconds tell more than seconds on a machine that others use."""

    what: str
    seconds: float
    cpu_seconds: float
    peak_mb: float


def measure(what: str, argv: list[str]) -> Cost:
    """Run a command; ``wait4`` says what it and its children used."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(argv, stdout=said, stderr=said, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"})
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begin
        said.seek(0)
        assert process.returncode == 0, said.read().decode()
    return Cost(what, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


# ------------------------------------------------------------------------------------ a search in the making


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


def report_once_more(storage: Path, iterations: int) -> None:
    """Have the trials that are at work report a result each."""
    for folder in sorted(path for path in storage.iterdir() if path.is_dir())[-AT_WORK:]:
        log = folder / "result.json"
        last = json.loads(log.read_bytes().splitlines()[-1])
        with log.open("a") as file:
            file.write(json.dumps(last | {"training_iteration": last["training_iteration"] + 1}) + "\n")


# ---------------------------------------------------------------------------------------- the measurement


def contenders(run: Path, trials: int, iterations: int) -> Iterator[Cost]:
    """Measure our way three times, then Ray's."""
    collect = [str(Path(sys.executable).with_name("hpc-tune")), "collect", str(run)]
    storage = run / "storage"
    rows = sum(line_count(path) for path in storage.glob("*/result.json"))
    for left in run.glob("*.csv"):
        left.unlink()
    yield measure("hpc-tune collect, the first", collect)
    yield measure("hpc-tune collect, nothing new", collect)
    report_once_more(storage, iterations)
    yield measure(f"hpc-tune collect, {AT_WORK} new results", collect)
    rows += AT_WORK
    yield measure("Ray's ResultGrid", [sys.executable, "-c", RAYS_WAY, str(storage), str(trials), str(rows)])


def line_count(path: Path) -> int:
    """Count the results of a trial, which also brings them into the page cache: all contenders find them there."""
    return path.read_bytes().count(b"\n")


@contextmanager
def search_in(directory: Path | None, trials: int, iterations: int) -> Iterator[Path]:
    """Yield the run, made unless it is there; one in a temporary directory is removed."""
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="hpc-tune-collect-") as folder:
            yield make_run(Path(folder), trials, iterations)
        return
    made = [path.parent for path in directory.glob("runs/*/run.json")]
    yield made[0] if made else make_run(directory, trials, iterations)


def table(costs: list[Cost]) -> Iterator[str]:
    """Yield the lines of a Markdown table; ratios are to Ray's way."""
    ray = costs[-1]
    yield "| | seconds | CPU seconds | peak memory | Ray's seconds to these | CPU seconds |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for each in costs:
        ratios = f"{ray.seconds / each.seconds:.1f} | {ray.cpu_seconds / each.cpu_seconds:.1f}"
        yield f"| {each.what} | {each.seconds:.2f} | {each.cpu_seconds:.2f} | {each.peak_mb:.0f} MB | {ratios} |"


def main() -> None:
    """Measure the contenders and print what they took."""
    parser = argparse.ArgumentParser(description="Time the tables of a large search beside Ray's ResultGrid.")
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--directory", type=Path, help="where to make the search, and leave it")
    parser.add_argument("--json", type=Path, help="also write the figures to a file")
    arguments = parser.parse_args()
    with search_in(arguments.directory, arguments.trials, arguments.iterations) as run:
        costs = list(contenders(run, arguments.trials, arguments.iterations))
    print(f"{arguments.trials:,} trials x {arguments.iterations} iterations\n")
    print("\n".join(table(costs)))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(each) for each in costs], indent=2) + "\n")


if __name__ == "__main__":
    main()
