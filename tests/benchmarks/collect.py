"""What the tables of a large search cost: ``hpc-tune collect``, again with little new, and Ray's own ``ResultGrid``.

All contenders read the same directory, each as a command of its own: imports and all. Ray's makes no files; it reads
every trial and makes its table of last results.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.harness import HPC_TUNE, Contender, Row, Scenario, command
from tests.benchmarks.made_search import AT_WORK, make_run, report_once_more

RAYS_WAY = """\
import json, sys
from ray.tune import ExperimentAnalysis, ResultGrid
grid = ResultGrid(ExperimentAnalysis(sys.argv[1]))
table = grid.get_dataframe()
assert len(table) == len(grid) == int(sys.argv[2])
assert sum(len(each.metrics_dataframe) for each in grid) == int(sys.argv[3])
"""


@contextmanager
def prepare(folder: Path, trials: int, iterations: int) -> Iterator[Mapping[str, Contender]]:
    """Make the search; yield our ways, and Ray's."""
    run = make_run(folder, trials, iterations)
    storage = run / "storage"

    def collect() -> dict[str, float]:
        return command([HPC_TUNE, "collect", str(run)])

    def first() -> dict[str, float]:
        for left in (*run.glob("*.csv"), *run.glob(".collect.cache*")):
            left.unlink()
        return collect()

    def little_new() -> dict[str, float]:
        report_once_more(storage)
        return collect()

    def rays() -> dict[str, float]:
        rows = sum(path.read_bytes().count(b"\n") for path in storage.glob("*/result.json"))
        return command([sys.executable, "-c", RAYS_WAY, str(storage), str(trials), str(rows)])

    yield {"collect, the first": first, "collect, nothing new": collect, "collect, little new": little_new, "Ray": rays}


SCENARIO = Scenario(
    name="collect",
    about="the tables of {trials:,} trials x {iterations} iterations",
    prepare=prepare,
    rows=(
        Row("tables of {trials:,} trials x {iterations} iterations", "collect, the first", "Ray", at_most=0.2),
        Row("the same in CPU seconds", "collect, the first", "Ray", "cpu_seconds"),
        Row("again, nothing new", "collect, nothing new", "Ray"),
        Row("again, 16 new results", "collect, little new", "Ray"),
        Row("peak memory", "collect, the first", measure="peak_mb", kind="value", at_most=1000, unit=" MB"),
        Row("Ray's peak memory", "Ray", measure="peak_mb", kind="value", unit=" MB"),
    ),
    how={
        "collect": f"`hpc-tune collect RUN`: the first; with nothing new; after {AT_WORK} trials reported once more",
        "Ray": "`ResultGrid(ExperimentAnalysis(storage)).get_dataframe()` and each trial's `metrics_dataframe`",
    },
    size={"trials": 10_000, "iterations": 50},
    small={"trials": 40, "iterations": 3},
    rounds=3,
    minutes=4,
)
