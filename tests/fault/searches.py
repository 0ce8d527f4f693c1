"""Searches whose results tell whether every iteration was done exactly once, in order."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["GRID", "STEPS", "TRAINABLE", "Ledger", "experiment_of", "score_of", "short_pause"]

TRAINABLE = """\
import json, os, tempfile, time
from pathlib import Path
from hpc_tune import should_checkpoint
from ray import tune

def train(config):
    state = {"step": 0, "score": 0.0}
    if checkpoint := tune.get_checkpoint():
        with checkpoint.as_directory() as folder:
            state = json.loads(Path(folder, "state.json").read_text())
    trial = tune.get_context().get_trial_id()
    for step in range(state["step"] + 1, config["steps"] + 1):
        time.sleep(config["seconds"])
        with open(config["ledger"], "ab", buffering=0) as ledger:
            ledger.write(f"{trial} {step} {os.uname().nodename} {os.getpid()}\\n".encode())
        state = {"step": step, "score": state["score"] * 1.5 + config["lr"] * step}
        if should_checkpoint(every=config["every"]):
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "state.json").write_text(json.dumps(state))
                tune.report(state, checkpoint=tune.Checkpoint.from_directory(folder))
        else:
            tune.report(state)
"""
STEPS = 12
"""Iterations of a trial that nothing stops."""
GRID = [1.0, 1.25, 1.5, 1.75, 2.0, 2.25]
ALGORITHMS: dict[str, dict[str, Any]] = {
    "grid": {"num_samples": 1},
    "random": {},
    "asha": {"trial_scheduler": {"name": "asha", "max_t": STEPS, "grace_period": 3, "reduction_factor": 2}},
    "optuna": {"searcher": {"name": "optuna"}},
    "pbt": {
        "num_samples": 4,
        "trial_scheduler": {
            "name": "pbt",
            "perturbation_interval": 3,
            "synch": True,
            "hyperparam_mutations": {"lr": {"uniform": [1, 2]}},
        },
    },
}


def experiment_of(algorithm: str, *, ledger: Path, every: int, seconds: float, steps: int = STEPS) -> dict[str, Any]:
    """Return the experiment of a search by one of the algorithms."""
    lr: dict[str, Any] = {"grid": GRID} if algorithm == "grid" else {"uniform": [1, 2]}
    return {
        "num_samples": 6,
        "seed": 11,
        "space": {"lr": lr, "ledger": str(ledger), "every": every, "seconds": seconds, "steps": steps},
        "stop": {"training_iteration": steps},
        **ALGORITHMS[algorithm],
    }


def score_of(lr: float, steps: int) -> float:
    """Return the score of a trial whose iterations were each done once, in order."""
    score = 0.0
    for step in range(1, steps + 1):
        score = score * 1.5 + lr * step
    return score


@dataclass(frozen=True)
class Execution:
    """One execution of an iteration."""

    trial: str
    step: int
    node: str
    pid: int
    """In the node's own namespace of processes."""


@dataclass(frozen=True)
class Ledger:
    """The list of all executions of iterations, kept by those who executed them."""

    path: Path

    def executions(self) -> list[Execution]:
        if not self.path.exists():
            return []
        words = (line.split() for line in self.path.read_text().splitlines())
        return [Execution(trial, int(step), node, int(pid)) for trial, step, node, pid in words]

    def count(self) -> int:
        return len(self.executions())

    def of_trials(self) -> Counter[str]:
        """Return how many iterations each trial has executed."""
        return Counter(each.trial for each in self.executions())

    def repeated(self) -> Counter[str]:
        """Return how many iterations each trial has executed more than once, counted as often."""
        done = Counter((each.trial, each.step) for each in self.executions())
        return Counter(trial for (trial, _), times in done.items() for _ in range(times - 1))

    def grows(self, beyond: int) -> bool:
        """Tell whether there are more executions than so many."""
        return self.count() > beyond

    def last(self, *, node: str | None = None) -> Execution:
        """Return the newest execution, or the newest of one node."""
        return [each for each in self.executions() if node in (None, each.node)][-1]


def short_pause(seconds: float) -> None:
    """Let a random part of an iteration go by: the instant of a fault is not the beginning of an iteration."""
    time.sleep(seconds)
