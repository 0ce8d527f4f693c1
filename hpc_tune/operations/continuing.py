"""Whether a run may be continued, here or on Slurm."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpc_tune.durable import read_json, write_json
from hpc_tune.errors import ExperimentError, RunError
from hpc_tune.experiment.algorithms import HyperBand, Pbt
from hpc_tune.experiment.load import LoadedExperiment, load_experiment
from hpc_tune.experiment.space import Domain
from hpc_tune.experiment.spec import Experiment, changed_keys, flatten
from hpc_tune.run import RunDir

__all__ = ["check_continuable", "edited_since", "extending"]


def check_continuable(
    run: RunDir, *, retry_errors: bool, more_samples: int = 0, overrides: Sequence[str] = ()
) -> LoadedExperiment:
    """Return the experiment as the run keeps it, with the samples that it then has, if there is something to continue.

    Args:
        run: the run.
        retry_errors: whether failed trials are to start again.
        more_samples: by how many samples the search is to be extended.
        overrides: ``KEY=VALUE`` texts, beside those that the run began with; none may change the search.

    Raises:
        RunError: if the run is complete, belongs to somebody else, or its search was changed.
    """
    owner = run.path.stat().st_uid
    if owner != os.getuid():  # the state of a search is a pickle, which can run code
        raise RunError(f"{run.path} belongs to user {owner}; only its owner can resume it")
    record = run.record()
    loaded = load_experiment(run.experiment_file, [*record["overrides"], *overrides], folder=run.code)
    if changes := changed_keys(record["spec"], loaded.experiment.as_json()):
        raise RunError(
            f"the experiment of {run.name} has changed since it began:\n  " + "\n  ".join(changes),
            hint=f"put {run.experiment_file} back as it was, or begin a new run: hpc-tune run {record['source']}",
        )
    attempts = run.attempts()
    last = attempts[-1].outcome() if attempts else None
    if last is not None and last.ending == "completed" and not retry_errors and not more_samples:
        hint = "to start its failed trials again add --retry-errors, to extend the search --more-samples N"
        raise RunError(f"{run.name} is complete", hint=hint)
    experiment = run.extended(loaded.experiment)
    if more_samples:
        _refuse_fixed_size(experiment)
        experiment = experiment.model_copy(update={"num_samples": experiment.num_samples + more_samples})
    return replace(loaded, experiment=experiment)


@contextmanager
def extending(run: RunDir, num_samples: int) -> Iterator[None]:
    """Have the run's next attempt know how many samples it has; take it back if that attempt does not come about."""
    before = read_json(run.samples_file)
    write_json(run.samples_file, {"num_samples": num_samples})
    try:
        yield
    except BaseException:
        if before is None:
            run.samples_file.unlink()
        else:
            write_json(run.samples_file, before)
        raise


def _refuse_fixed_size(experiment: Experiment) -> None:
    """Refuse to extend a search whose size is part of what it is.

    Raises:
        RunError: if its trials make one population, or a grid that is complete.
    """
    if isinstance(experiment.trial_scheduler, Pbt | HyperBand):
        raise RunError(f"{experiment.trial_scheduler.name} works on all trials together: it cannot be extended")
    leaves = [value for _, value in flatten(experiment.space, "")]
    searched = [value for value in leaves if isinstance(value, Domain)]
    if searched and all(domain.kind == "grid" for domain in searched):
        raise RunError("the grid is complete: more samples would repeat it", hint="begin a new run with a larger grid")


def edited_since(record: dict[str, Any]) -> list[str]:
    """Say so when the file that the run was made from has been edited; the run keeps to its own copy."""
    source = Path(record["source"])
    try:
        now = load_experiment(source, record["overrides"]).experiment
    except ExperimentError:
        return []
    keys = [change.split(" was ", 1)[0] for change in changed_keys(record["spec"], now.as_json())]
    if not keys:
        return []
    return [f"{source} has been edited since ({', '.join(keys)}); this run goes on as it began"]
