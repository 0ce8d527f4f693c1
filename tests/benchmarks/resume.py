"""How long a search of 1,000 trials, half of them finished, takes to go on, beside how long it took to begin."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from hpc_tune.progress import Progress
from hpc_tune.run import RunDir
from tests.benchmarks.harness import HPC_TUNE, Contender, Row, Scenario
from tests.benchmarks.searches import only_run, write_search

TRAINABLE = """\
from ray import tune

def train(config):
    tune.report({"score": config["x"]})
"""
PATIENCE = 400.0


def interrupted(argv: list[str], runs: Path, attempt: int, enough: Callable[[Progress], bool]) -> dict[str, float]:
    """Run a command until its attempt has come far enough, and have it save; return its phases in seconds."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if (progress := _progress(runs, attempt)) is not None and enough(progress):
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.1)
    try:
        _, said = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    made = next(each for each in only_run(runs).attempts() if each.number == attempt)
    record, progress = made.record(), _progress(runs, attempt)
    if record is None or progress is None or "first_result" not in progress.phases:
        raise RuntimeError(f"attempt {attempt} came to no result: {said}")
    return {name: when - record.started for name, when in progress.phases.items()}


def _progress(runs: Path, attempt: int) -> Progress | None:
    if not [*runs.glob("*/run.json")]:
        return None
    run: RunDir = only_run(runs)
    return next((Progress.read(each.progress_file) for each in run.attempts() if each.number == attempt), None)


def has_result(progress: Progress) -> bool:
    """Tell whether the first result is there."""
    return "first_result" in progress.phases


@contextmanager
def prepare(folder: Path, trials: int, cpus: int) -> Iterator[Mapping[str, Contender]]:
    """Yield a first start, and the resume of a search that was interrupted when half of its trials had ended."""
    experiment = write_search(folder / "project", TRAINABLE, trials=trials)
    half_done = folder / "half"
    begin = [HPC_TUNE, "run", str(experiment), "--cpus", str(cpus), "--runs-dir"]
    interrupted(
        [*begin, str(half_done)], half_done, 1, lambda progress: progress.states.get("TERMINATED", 0) >= trials // 2
    )
    number, attempt = count(1), count(2)

    def first() -> dict[str, float]:
        runs = folder / f"first-{next(number)}"
        return interrupted([*begin, str(runs)], runs, 1, has_result)

    def again() -> dict[str, float]:
        argv = [HPC_TUNE, "resume", "--cpus", str(cpus), "--runs-dir", str(half_done)]
        return interrupted(argv, half_done, next(attempt), has_result)

    yield {"first start": first, "resume": again}


SCENARIO = Scenario(
    name="resume",
    about="{trials:,} trials of one report; attempt start to its first new result",
    prepare=prepare,
    rows=(
        Row("resume of {trials:,} trials, half of them finished", "resume", "first start", "first_result", "difference",
            at_most=3, unit=" s"),
        Row("the same as a ratio", "resume", "first start", "first_result"),
    ),
    how={
        "first start": "`hpc-tune run --cpus 2`, interrupted at its first result",
        "resume": "`hpc-tune resume --cpus 2` of a search interrupted when half of its trials had ended",
    },
    size={"trials": 1000, "cpus": 2},
    small={"trials": 20, "cpus": 2},
    rounds=3,
    minutes=3,
)  # fmt: skip
