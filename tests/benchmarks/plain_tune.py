"""A search by plain Ray Tune: what a user would write, run as a command: TRAIN.py TRIALS CPUS STORAGE [reuse]."""

from __future__ import annotations

import importlib.util
import sys
import tempfile

import ray
from ray import tune


def main(path: str, trials: str, cpus: str, storage: str, reuse: str = "") -> None:
    """Search the trainable ``train`` of a file."""
    spec = importlib.util.spec_from_file_location("train", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    train = module.train
    module.__dict__["__name__"] = "__main__"  # shipped by value, as from a script or a notebook
    train.__module__ = "__main__"
    with (
        tempfile.TemporaryDirectory(prefix="pt-", ignore_cleanup_errors=True) as folder,
        ray.init(num_cpus=int(cpus), include_dashboard=False, log_to_driver=False, _temp_dir=folder),
    ):
        results = tune.Tuner(
            tune.with_resources(train, {"cpu": 1}),
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(metric="score", mode="max", num_samples=int(trials), reuse_actors=bool(reuse)),
            run_config=tune.RunConfig(storage_path=storage, verbose=0),
        ).fit()
    assert len(results) == int(trials)
    assert not results.errors


if __name__ == "__main__":
    main(*sys.argv[1:])
