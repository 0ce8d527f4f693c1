"""How well trials of uneven length fill the slots of four nodes, beside what no tuner can beat."""

from __future__ import annotations

import csv
import heapq
import json
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from hpc_tune_slurm.sandbox import Sandbox, SandboxConfig

from hpc_tune.run import RunDir
from tests.benchmarks.harness import Contender, Row, Scenario
from tests.benchmarks.searches import write_search
from tests.benchmarks.slurm_jobs import User

TRAINABLE = """\
import time
from ray import tune

def train(config):
    begin = time.time()
    time.sleep(config["seconds"])
    tune.report({"score": config["seconds"], "begin": begin, "end": time.time()})
"""
NODES, SLOTS = 4, 4  # slots of each node
SHORTEST, LONGEST = 5.0, 40.0


def makespan(free: list[float], lengths: list[float]) -> float:
    """Return when the last trial ends if each begins, in this order, at the instant that a slot is free."""
    slots = list(free)
    heapq.heapify(slots)
    return max(heapq.heapreplace(slots, slots[0] + length) + length for length in lengths)


def shares(trials: list[tuple[float, float]], slots: int) -> dict[str, float]:
    """Return how full the slots were, as a share of what perfect hand-over gives: by trials' begins and ends.

    A slot counts from its first trial on; ``with_start`` counts all from the first trial of the search on.
    """
    in_order = sorted(trials)
    lengths = [end - begin for begin, end in in_order]
    firsts = [begin for begin, _ in in_order[:slots]]
    last = max(end for _, end in trials)
    inside = sum(lengths)

    def filled(free: list[float], end: float) -> float:
        return inside / sum(end - each for each in free)

    together = [firsts[0]] * slots
    return {
        "share": filled(firsts, last) / filled(firsts, makespan(firsts, lengths)),
        "with_start": filled(together, last) / filled(together, makespan(together, lengths)),
    }


@contextmanager
def prepare(folder: Path, trials: int) -> Iterator[Mapping[str, Contender]]:
    """Yield our search on a throw-away Slurm, whose nodes say that they have four CPUs."""
    config = SandboxConfig(
        state_dir=Path(f"/var/lib/hpc-tune-bench-{os.getpid()}"), cluster_name="bench", nodes=NODES, cpus=SLOTS,
        gpus=0, memory=4000, shm=1024, tmp=1024,
    )  # fmt: skip
    draw = random.Random(7)
    lengths = [round(draw.uniform(SHORTEST, LONGEST), 1) for _ in range(trials)]
    allocation = {"nodes": NODES, "min_nodes": NODES, "cpus_per_node": SLOTS}
    space = {"seconds": {"grid": lengths}}
    experiment = write_search(folder / "project", TRAINABLE, trials=1, space=space, allocation=allocation)
    number = count()
    with Sandbox(config) as sandbox:
        user = User(sandbox, folder)

        def ours() -> dict[str, float]:
            runs = folder / f"runs-{next(number)}"
            argv = [sys.executable, "-m", "hpc_tune", "submit", str(experiment), "--runs-dir", str(runs), "--json"]
            said = json.loads(user.run([*argv, "--time", "30m"], folder))
            user.wait_for_end(said["job_id"])
            with (RunDir(Path(said["path"])).path / "trials.csv").open(newline="") as file:
                rows = [(float(row["begin"]), float(row["end"])) for row in csv.DictReader(file)]
            assert len(rows) == trials
            sandbox.wait_idle(120)
            time.sleep(1)
            return shares(rows, NODES * SLOTS)

        yield {"hpc-tune": ours}


SCENARIO = Scenario(
    name="packing",
    about="{trials} trials that sleep 5 to 40 s on 4 nodes x 4 slots; 1 is what a hand-over in no time gives",
    prepare=prepare,
    rows=(
        Row(
            "filled slots, {trials} uneven trials on 4 x 4 slots",
            "hpc-tune",
            measure="share",
            kind="value",
            at_least=0.95,
        ),
        Row("the same, start of 16 processes included", "hpc-tune", measure="with_start", kind="value"),
    ),
    how={"hpc-tune": "`hpc-tune submit --nodes 4` on the throw-away Slurm; trials in order of their number"},
    size={"trials": 32},
    small={"trials": 17},
    rounds=2,
    minutes=3,
)
