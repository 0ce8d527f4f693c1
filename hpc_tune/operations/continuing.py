"""Whether a run may be continued, here or on Slurm."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_tune.errors import ExperimentError, RunError
from hpc_tune.experiment.load import LoadedExperiment, load_experiment
from hpc_tune.experiment.spec import Experiment, changed_keys
from hpc_tune.run import RunDir

__all__ = ["check_continuable", "edited_since"]


def check_continuable(run: RunDir, *, retry_errors: bool, overrides: Sequence[str] = ()) -> LoadedExperiment:
    """Return the experiment as the run keeps it, if there is something to continue.

    Args:
        run: the run.
        retry_errors: whether failed trials are to start again.
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
    if last is not None and last.ending == "completed" and not retry_errors:
        raise RunError(f"{run.name} is complete", hint="to start its failed trials again, add --retry-errors")
    return loaded


def edited_since(record: dict[str, Any], experiment: Experiment) -> list[str]:
    """Say so when the file that the run was made from has been edited; the run keeps to its own copy."""
    source = Path(record["source"])
    try:
        now = load_experiment(source, record["overrides"]).experiment
    except ExperimentError:
        return []
    keys = [change.split(" was ", 1)[0] for change in changed_keys(experiment.as_json(), now.as_json())]
    if not keys:
        return []
    return [f"{source} has been edited since ({', '.join(keys)}); this run goes on as it began"]
