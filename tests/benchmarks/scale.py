"""What the driver of a search takes as its trials grow: time per trial, memory, and snapshots of the state."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from tests.benchmarks.harness import Contender, Row, Scenario
from tests.benchmarks.searches import run_here, write_search

TRAINABLE = """\
import atexit, json, re, time
from pathlib import Path
from ray import tune

def train(config):
    tune.report({"score": config["x"]})

def watch_the_driver():
    \"\"\"Time the snapshots, and note at the end what the driver has taken: data is loaded in it alone.\"\"\"
    from hpc_tune.runtime.snapshots import Snapshots

    spent = {"snapshots": 0.0, "saved": 0}
    due, write, save = Snapshots._due, Snapshots._write, Snapshots.sync_up_experiment_state

    def timed(self, *arguments, **options):
        begin, before = time.perf_counter(), self._last
        save(self, *arguments, **options)
        spent["snapshots"] += time.perf_counter() - begin
        spent["saved"] += self._last != before

    Snapshots.sync_up_experiment_state = timed
    note = Path(__file__).with_name("driver.json")

    def leave():
        peak = re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]
        note.write_text(json.dumps(spent | {"peak_mb": int(peak) / 1024}))

    atexit.register(leave)
"""


@contextmanager
def prepare(folder: Path, **sizes: int) -> Iterator[Mapping[str, Contender]]:
    """Yield a search for each size."""
    number = count()

    def measure(trials: int) -> dict[str, float]:
        project = folder / f"project-{next(number)}"
        text = TRAINABLE.replace("def train(config):", "def train(config, data):")
        experiment = write_search(project, text, trials=trials, data="train.py:watch_the_driver")
        took = run_here(experiment, project / "runs", 2)
        [note] = project.glob("runs/*/code/driver.json")
        [record] = project.glob("runs/*/attempts/001/progress.json")
        driver, elapsed = json.loads(note.read_text()), json.loads(record.read_text())["elapsed"]
        return {
            "seconds": took["seconds"],
            "ms_per_trial": 1000 * elapsed / trials,
            "peak_mb": driver["peak_mb"],
            "snapshots_percent": 100 * driver["snapshots"] / elapsed,
            "saved": driver["saved"],
        }

    yield {name.replace("_", " "): partial(measure, trials) for name, trials in sizes.items()}


SCENARIO = Scenario(
    name="scale",
    about="searches of trials that report once and end, two at a time; what their drivers took",
    prepare=prepare,
    rows=(
        Row("driver, a trial's share of the loop, many / few", "many", "few", "ms_per_trial"),
        Row("driver, peak memory, many / few", "many", "few", "peak_mb"),
        Row("driver, peak memory", "many", measure="peak_mb", kind="value", unit=" MB"),
        Row("snapshots, share of the driver's time", "many", measure="snapshots_percent", kind="value", at_most=3,
            unit=" %"),
    ),
    how={"few": "`hpc-tune run --cpus 2` of {few:,} trials", "many": "the same of {many:,}"},
    size={"few": 100, "many": 1000},
    small={"few": 4, "many": 8},
    rounds=3,
    minutes=2,
)  # fmt: skip
