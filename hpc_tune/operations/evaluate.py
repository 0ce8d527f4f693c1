"""Scoring a checkpoint on held-out data, by the user's function."""

from __future__ import annotations

import contextlib
import inspect
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_tune.errors import ExperimentError, Fault, RunError
from hpc_tune.experiment.load import load_experiment
from hpc_tune.experiment.source import check_reference, resolve
from hpc_tune.experiment.spec import Experiment
from hpc_tune.operations.best import BestTrial, best
from hpc_tune.run import RunDir
from hpc_tune.runtime.seeding import seed_trial

__all__ = ["Function", "chosen_function", "evaluate", "evaluated_trial"]

FORMS = "evaluate(config, checkpoint), or evaluate(config, checkpoint, data)"


@dataclass(frozen=True)
class Function:
    """A function that scores checkpoints."""

    reference: str
    source: Path | None = None
    """A file from outside of the run's snapshot that it is defined in."""

    def kept_in(self, folder: Path) -> Function:
        """Copy its file, so that later edits change nothing; under a name that no module of the snapshot has."""
        if self.source is None:
            return self
        copy = folder / f"function_{self.source.name}"
        shutil.copyfile(self.source, copy)
        return Function(f"{copy.name}:{self.reference.rpartition(':')[2]}", copy)


def chosen_function(run: RunDir, given: str | None) -> Function:
    """Return the function that scores a run's checkpoints, without importing it.

    Args:
        run: the run.
        given: ``FILE.py:NAME`` or ``package.module:NAME``, in the run's snapshot or else here; None: as the experiment
            says.

    Raises:
        RunError: if the experiment names none.
        ExperimentError: if there is no such function.
    """
    if given is None:
        named = run.record()["spec"].get("evaluate")
        if named is None:
            raise RunError(
                f"the experiment of {run.name} names no function that scores a checkpoint",
                hint='name one with --function FILE.py:NAME; in the experiment file: evaluate = "train.py:evaluate"',
            )
        return Function(str(named))
    target, _, name = given.rpartition(":")
    if not target or not name.isidentifier():
        raise ExperimentError("--function", [Fault("", f"expected FILE.py:NAME, got {given!r}")])
    here = Path(target).absolute()
    fault = check_reference("--function", given, run.code)
    if fault is None:
        return Function(given)
    if here.is_file():
        fault = check_reference("--function", f"{here.name}:{name}", here.parent)
    if fault is not None:
        raise ExperimentError("--function", [Fault("", fault.problem, fault.suggestion)])
    return Function(f"{here.name}:{name}", here)


def evaluated_trial(run: RunDir, trial: str | None) -> BestTrial:
    """Return the trial to score.

    Raises:
        RunError: if it has left no checkpoint, or no trial has reported yet.
        UsageError: if there is no such trial.
    """
    found = best(run, trial)
    if found.checkpoint is None:
        raise RunError(
            f"trial {found.trial_id} of {run.name} has left no checkpoint",
            hint='have the trainable report one, see "should_checkpoint" in the README; or choose another with --trial',
        )
    return found


def evaluate(run: RunDir, trial: str | None, function: Function, *, folder: Path) -> dict[str, Any]:
    """Call the function with the trial's config and best checkpoint, in a folder of its own.

    Raises:
        RunError: if there is no checkpoint, or the function does not return a dictionary of metrics.
        Exception: the function's own.
    """
    found = evaluated_trial(run, trial)
    record = run.record()
    experiment = load_experiment(run.experiment_file, record["overrides"], folder=run.code).experiment
    sys.path.insert(0, str(run.code))
    seed_trial(int(record["seed"]), found.trial_id, experiment.trial.cpus)
    in_python = function.reference.startswith("<")  # an object of a .py experiment
    where = run.code if function.source is None else function.source.parent
    score = resolve(experiment.evaluate if in_python else function.reference, where)
    checkpoint = found.checkpoint
    begun = time.time()
    with contextlib.chdir(folder):
        metrics = score(*_arguments(score, function.reference, experiment, run, found))
    return {
        "run": run.name,
        "trial": found.trial_id,
        "checkpoint": str(checkpoint.path) if checkpoint else None,
        "checkpoint_iteration": checkpoint.iteration if checkpoint else None,
        "function": function.reference,
        "metrics": _checked(metrics, function.reference),
        "seconds": time.time() - begun,
    }


def _arguments(
    score: Callable[..., Any], reference: str, experiment: Experiment, run: RunDir, found: BestTrial
) -> tuple[Any, ...]:
    """Return config and checkpoint, and the data if the function takes a third argument and the experiment has some."""
    path = found.checkpoint.path if found.checkpoint else None
    positional, required = _counts(score)
    takes_data = positional > 2 and (experiment.data is not None or required > 2)
    if positional < 2 or required > 3:
        raise RunError(f"{reference} takes other arguments than it gets", hint=f"write it as {FORMS}")
    if not takes_data:
        return found.config, path
    if experiment.data is None:
        raise RunError(
            f"{reference} takes a third argument, but the experiment of {run.name} has no data",
            hint='write it as evaluate(config, checkpoint), or name data = "train.py:load_data" in the experiment',
        )
    return found.config, path, resolve(experiment.data, run.code)()


def _counts(function: Callable[..., Any]) -> tuple[int, int]:
    """Return how many arguments without names a function takes at the most, and how many it needs."""
    parameters = inspect.signature(function).parameters.values()
    plain = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    some = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    required = sum(each.default is each.empty for each in plain)
    return 3 if some else len(plain), required


def _checked(metrics: Any, reference: str) -> dict[str, Any]:
    """Return metrics as plain values.

    Raises:
        RunError: if it is no dictionary, or holds what is no number, text, list or dictionary.
    """
    if not isinstance(metrics, Mapping):
        raise RunError(
            f"{reference} returned {type(metrics).__name__}, not a dict of metrics",
            hint='return for example {"accuracy": 0.93}',
        )
    plain = _plain(metrics)
    try:
        json.dumps(plain)
    except TypeError as error:
        raise RunError(f"{reference} returned what cannot be kept: {error}", hint="return numbers and texts") from None
    return dict(plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value  # NumPy's and PyTorch's numbers and arrays
