"""A random search of the Fashion-MNIST classifier: ours, the notebook's way, and training loops without Ray."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.benchmarks.harness import HPC_TUNE, Contender, Row, Scenario, command
from tests.benchmarks.searches import only_run

EXAMPLE = Path(__file__).resolve().parents[2] / "experiments" / "fashion_mnist" / "random.toml"
NOTEBOOK = Path(__file__).with_name("notebook.py")


@contextmanager
def prepare(folder: Path, epochs: int) -> Iterator[Mapping[str, Contender]]:
    """Yield the contenders, each a command with two slots of one core."""
    number = count()

    def ours() -> dict[str, float]:
        runs = folder / f"runs-{next(number)}"
        argv = [HPC_TUNE, "run", str(EXAMPLE), "--runs-dir", str(runs), "--set", f"space.epochs={epochs}"]
        took = command([*argv, "--cpus", "2"])
        with (only_run(runs).path / "trials.csv").open(newline="") as rows:
            return took | {"accuracy": max(float(row["mean_accuracy"]) for row in csv.DictReader(rows))}

    def other(name: str) -> dict[str, float]:
        accuracy = folder / f"accuracy-{name}"
        argv = ["bash", "-c", '"$@" >"$0"', str(accuracy), sys.executable, str(NOTEBOOK), name, str(epochs)]
        return command(argv) | {"accuracy": float(accuracy.read_text().splitlines()[-1])}

    yield {"hpc-tune": ours, "bare": lambda: other("bare"), "notebook": lambda: other("notebook")}


SCENARIO = Scenario(
    name="fashion-mnist",
    about="4 trials x {epochs} epochs of experiments/fashion_mnist/random.toml in two slots of one core, imports and "
    "data included; ours draws its own samples of the space, the others train the same four",
    prepare=prepare,
    rows=(
        Row("Fashion-MNIST, random search", "hpc-tune", "notebook", at_most=0.16),
        Row("Fashion-MNIST, random search", "hpc-tune", "bare", at_most=1.3),
        Row("its best accuracy", "hpc-tune", "notebook", "accuracy"),
    ),
    how={
        "hpc-tune": "`hpc-tune run random.toml`",
        "notebook": "plain Ray Tune, the dataset captured by the trainable and decoded image by image in each epoch",
        "bare": "a pool of two processes that run the example's training functions: no reports, no checkpoints",
    },
    size={"epochs": 10},
    small={"epochs": 1},
    rounds=3,
    minutes=5,
)
