"""What a trial costs beside its own work: many trials of 0.1 s."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.benchmarks import plain_tune
from tests.benchmarks.harness import Contender, Row, Scenario, command
from tests.benchmarks.searches import run_here, write_search

TRAINABLE = """\
import time
from ray import tune

def train(config):
    time.sleep(0.1)
    tune.report({"score": config["x"]})
"""
SLOTS = 2


@contextmanager
def prepare(folder: Path, trials: int) -> Iterator[Mapping[str, Contender]]:
    """Yield the contenders, each a command from its start to its exit."""
    experiment = write_search(folder / "project", TRAINABLE, trials=trials)
    number = count()

    def plain(*reuse: str) -> dict[str, float]:
        train, storage = experiment.with_name("train.py"), folder / f"plain-{next(number)}"
        return command([sys.executable, plain_tune.__file__, str(train), str(trials), str(SLOTS), str(storage), *reuse])

    yield {
        "hpc-tune": lambda: run_here(experiment, folder / f"runs-{next(number)}", SLOTS),
        "Ray Tune, reused actors": lambda: plain("reuse"),
        "Ray Tune": plain,
    }


SCENARIO = Scenario(
    name="trial-overhead",
    about="{trials} trials of 0.1 s in two slots, from the command's start to its exit",
    prepare=prepare,
    rows=(
        Row("{trials} trials of 0.1 s", "hpc-tune", "Ray Tune", at_most=0.15),
        Row("{trials} trials of 0.1 s", "hpc-tune", "Ray Tune, reused actors", at_most=1.05),
    ),
    how={
        "hpc-tune": "`hpc-tune run search.json --cpus 2`, tables included",
        "Ray Tune": "`tune.Tuner(...).fit()` after `ray.init(num_cpus=2, include_dashboard=False)`, defaults else",
        "Ray Tune, reused actors": "the same with `TuneConfig(reuse_actors=True)`",
    },
    size={"trials": 200},
    small={"trials": 6},
    rounds=3,
    minutes=8,
)
