"""Maximise a quadratic through an estimator that hyperparameters distort: Ray's "Visualizing PBT".

What counts is ``Q``; what a trial climbs is the estimator, whose weights ``h0`` and ``h1`` are hyperparameters. With
one of them at 0 a trial alone cannot arrive; a population can.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import tune

from hpc_tune import should_checkpoint

START = (0.9, 0.9)


def quality(theta: NDArray[np.float64]) -> float:
    """Return Q, at most 1.2."""
    return float(1.2 - (3 / 4 * theta[0] ** 2 + theta[1] ** 2))


def slope(theta: NDArray[np.float64], h: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the gradient of the estimator 1.2 - (h0 theta0² + h1 theta1²)."""
    return -2 * h * theta


def train(config: dict[str, Any]) -> None:
    """Climb until Tune stops the trial, from its checkpoint if it has one."""
    theta = np.array(START)
    if checkpoint := tune.get_checkpoint():
        theta = np.array(json.loads(Path(checkpoint.path, "theta.json").read_text()))
    h = np.array([config["h0"], config["h1"]])
    while True:
        theta = theta + config["lr"] * slope(theta, h)
        metrics = {"Q": quality(theta), "theta0": theta[0], "theta1": theta[1]}
        if should_checkpoint(every=4):
            with TemporaryDirectory() as folder:
                Path(folder, "theta.json").write_text(json.dumps(theta.tolist()))
                tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))
        else:
            tune.report(metrics)
