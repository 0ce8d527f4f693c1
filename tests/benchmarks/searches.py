"""Small searches for scenarios: a trainable, its experiment file, and the run that came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpc_tune.run import RunDir
from tests.benchmarks.harness import HPC_TUNE, command


def write_search(folder: Path, trainable: str, *, trials: int, **further: Any) -> Path:
    """Write ``train.py`` and an experiment of so many trials; return the experiment file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text(trainable)
    experiment = {
        "name": "bench", "trainable": "train.py:train", "metric": "score", "mode": "max", "num_samples": trials,
        "space": {"x": {"uniform": [0, 1]}}, "trial": {"cpus": 1},
    }  # fmt: skip
    path = folder / "search.json"
    path.write_text(json.dumps(experiment | further))
    return path


def run_here(experiment: Path, runs: Path, cpus: int) -> dict[str, float]:
    """Run a search on this machine."""
    return command([HPC_TUNE, "run", str(experiment), "--runs-dir", str(runs), "--cpus", str(cpus)])


def only_run(runs: Path) -> RunDir:
    """Return the run of a directory that holds one."""
    [record] = runs.glob("*/run.json")
    return RunDir(record.parent)
