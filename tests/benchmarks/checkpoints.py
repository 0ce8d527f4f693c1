"""Checkpoints of 100 MB with every iteration, beside writing the same files; and what is left behind."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.benchmarks.harness import Contender, Row, Scenario, command
from tests.benchmarks.searches import only_run, run_here, write_search

TRAINABLE = """\
import tempfile
from pathlib import Path
from ray import tune

def train(config):
    state = bytes(config["mb"] * 10**6)
    for iteration in range(config["iterations"]):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "state.pt").write_bytes(state)
            tune.report({"score": config["x"]}, checkpoint=tune.Checkpoint.from_directory(folder))
"""
DIRECT = """\
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

folder, trials, iterations, mb, keep = Path(sys.argv[1]), *map(int, sys.argv[2:])

def write(trial):
    state = bytes(mb * 10**6)
    for iteration in range(iterations):
        checkpoint = folder / f"{trial}" / f"checkpoint_{iteration}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "state.pt").write_bytes(state)
        if iteration >= keep:
            (checkpoint.with_name(f"checkpoint_{iteration - keep}") / "state.pt").unlink()

if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(write, range(trials)))
"""
KEEP = 1


@contextmanager
def prepare(folder: Path, trials: int, iterations: int, mb: int) -> Iterator[Mapping[str, Contender]]:
    """Yield the contenders; what they write is removed after each."""
    space = {"x": {"uniform": [0, 1]}, "mb": mb, "iterations": iterations}
    experiment = write_search(folder / "project", TRAINABLE, trials=trials, space=space, checkpoint={"keep": KEEP})
    script = folder / "direct.py"
    script.write_text(DIRECT)
    number = count()

    def ours() -> dict[str, float]:
        runs = folder / f"runs-{next(number)}"
        took = run_here(experiment, runs, 2)
        storage = only_run(runs).storage
        files = [path for path in storage.glob("*/**/*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        shutil.rmtree(runs)
        return took | {"files": len(files) / trials, "checkpoints": size / trials / (mb * 10**6)}

    def direct() -> dict[str, float]:
        target = folder / f"direct-{next(number)}"
        numbers = (trials, iterations, mb, KEEP)
        took = command([sys.executable, str(script), str(target), *map(str, numbers)])
        shutil.rmtree(target)
        return took

    yield {"hpc-tune": ours, "writing the files": direct}


SCENARIO = Scenario(
    name="checkpoints",
    about="{trials} trials, two at a time, {iterations} checkpoints of {mb} MB each; the last is kept",
    prepare=prepare,
    rows=(
        Row("{trials} trials x {iterations} checkpoints of {mb} MB", "hpc-tune", "writing the files"),
        Row("files that a trial leaves, of one checkpoint of one file", "hpc-tune", measure="files", kind="value"),
        Row("bytes that a trial leaves, in checkpoints", "hpc-tune", measure="checkpoints", kind="value"),
    ),
    how={
        "hpc-tune": "`hpc-tune run --cpus 2`: start of Ray and tables included",
        "writing the files": "a pool of two processes, straight to where they stay, without a copy",
    },
    size={"trials": 16, "iterations": 3, "mb": 100},
    small={"trials": 2, "iterations": 2, "mb": 1},
    rounds=3,
    minutes=2,
)
