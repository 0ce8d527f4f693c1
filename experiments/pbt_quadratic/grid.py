"""Two trials without PBT, each with half of the estimator: neither can pass its limit, 0.39 and 0.59."""

from ray import tune

from hpc_tune import Experiment

experiment = Experiment(
    name="pbt-quadratic-grid",
    trainable="train.py:train",
    metric="Q",
    mode="max",
    space={
        "lr": 0.05,
        "h0": tune.grid_search([0.0, 1.0]),
        "h1": tune.sample_from(lambda config: 1.0 - config["h0"]),
    },
    stop={"training_iteration": 100},
)
