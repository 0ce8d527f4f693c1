"""The same two trials as a population: what one cannot improve it takes over from the other."""

from ray import tune

from hpc_tune import Experiment

experiment = Experiment(
    name="pbt-quadratic",
    trainable="train.py:train",
    metric="Q",
    mode="max",
    seed=1,
    space={
        "lr": tune.qloguniform(1e-3, 1e-1, 5e-4),
        "h0": tune.grid_search([0.0, 1.0]),
        "h1": tune.sample_from(lambda config: 1.0 - config["h0"]),
    },
    trial_scheduler={
        "name": "pbt",
        "perturbation_interval": 4,  # as often as train.py saves
        "quantile_fraction": 0.5,
        "resample_probability": 0.5,
        "synch": True,
        "hyperparam_mutations": {
            "lr": tune.qloguniform(1e-4, 1e-1, 5e-5),
            "h0": tune.uniform(0.0, 1.0),
            "h1": tune.uniform(0.0, 1.0),
        },
    },
    stop={"training_iteration": 100},
    trial={"max_failures": 3},
)
