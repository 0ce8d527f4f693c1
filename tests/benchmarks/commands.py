"""Commands that people type again and again: ``--help``, ``list`` and ``status`` of many runs."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from hpc_tune.attempt import AttemptRecord, Outcome
from hpc_tune.durable import read_json, write_json
from hpc_tune.experiment.load import load_experiment
from hpc_tune.progress import Best, Progress
from hpc_tune.run import RunDir
from tests.benchmarks.harness import HPC_TUNE, Contender, Row, Scenario, command
from tests.benchmarks.searches import write_search

TRAINABLE = "def train(config):\n    ...\n"


def make_runs(folder: Path, runs: int, trials: int) -> Path:
    """Write finished runs that share so many trials, as a driver on this machine leaves them."""
    each = trials // runs
    experiment = write_search(folder / "project", TRAINABLE, trials=each)
    loaded = load_experiment(experiment, [])
    first = RunDir.create(folder / "runs", loaded, overrides=[], seed=7, command=["hpc-tune", "run"])
    attempt, begun = first.new_attempt(), time.time() - 3600
    AttemptRecord("local", "here", 4, 1, nodes=1, started=begun).write(attempt.record_file)
    best = Best("t_00003", 0.93, 7, {"x": 0.5})
    states = {"TERMINATED": each}
    Progress("ending", total=each, states=states, slots=4, iterations=20 * each, best=best).write(attempt.progress_file)
    Outcome("completed", "all trials have ended", ended=begun + 900).write(attempt.outcome_file)
    for number in range(each):
        trial = first.storage / f"t_{number:05d}"
        trial.mkdir()
        (trial / "params.json").write_text(json.dumps({"x": 0.5}))
        (trial / "result.json").write_text(json.dumps({"score": 0.5, "training_iteration": 1}) + "\n")
    for number in range(1, runs):
        other = RunDir(first.path.with_name(f"bench-{number:03d}"))
        shutil.copytree(first.path, other.path)
        record = read_json(other.record_file) or {}
        write_json(other.record_file, record | {"created": record["created"] - number})
    return first.path.parent


@contextmanager
def prepare(folder: Path, runs: int, trials: int) -> Iterator[Mapping[str, Contender]]:
    """Yield the commands."""
    made = make_runs(folder, runs, trials)
    where = ["--runs-dir", str(made)]
    yield {
        "hpc-tune --help": partial(command, [HPC_TUNE, "--help"]),
        "hpc-tune list": partial(command, [HPC_TUNE, "list", *where]),
        "hpc-tune status": partial(command, [HPC_TUNE, "status", *where]),
    }


SCENARIO = Scenario(
    name="commands",
    about="{runs} finished runs in one directory, of {trials:,} trials in all",
    prepare=prepare,
    rows=(
        Row("CPU of --help", "hpc-tune --help", measure="cpu_seconds", kind="value", at_most=0.15, unit=" s"),
        Row("list of {runs} runs, {trials:,} trials", "hpc-tune list", kind="value", at_most=0.5, unit=" s"),
        Row("the same, CPU", "hpc-tune list", measure="cpu_seconds", kind="value", unit=" s"),
        Row("status of the latest of them", "hpc-tune status", kind="value", at_most=0.5, unit=" s"),
        Row("the same, CPU", "hpc-tune status", measure="cpu_seconds", kind="value", unit=" s"),
    ),
    how={"hpc-tune": "the command, from its start to its exit"},
    size={"runs": 200, "trials": 10_000},
    small={"runs": 5, "trials": 10},
    rounds=5,
    minutes=1,
)
