"""The four follow-ups as tasks, checked as far as can be before they are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc_tune.experiment.spec import TrialResources
from hpc_tune.operations.evaluate import chosen_function, evaluated_trial
from hpc_tune.operations.followup_jobs import Task
from hpc_tune.operations.replay import check_population
from hpc_tune.operations.report import FILE
from hpc_tune.run import RunDir

__all__ = ["collect_task", "evaluate_task", "replay_task", "report_task"]


def evaluate_task(
    run: RunDir, *, trial: str | None = None, function: str | None = None, after: Sequence[RunDir] = ()
) -> Task:
    """Score the best checkpoint of a trial on held-out data.

    Args:
        run: the run.
        trial: a trial's id, the beginning of it, or its number; None: the best.
        function: ``FILE.py:NAME`` or ``package.module:NAME``; None: as the experiment says.
        after: the runs that have to be over before.

    Raises:
        RunError: if there is no such function, or no checkpoint.
        UsageError: if there is no such trial.
    """
    chosen = chosen_function(run, function)
    trial_id = trial if after else evaluated_trial(run, trial).trial_id

    def prepare(folder: Path) -> Mapping[str, Any]:
        kept = chosen.kept_in(folder)
        return {"function": kept.reference, "source": str(kept.source) if kept.source else None}

    return Task("evaluate", (run,), {"trial": trial_id}, _needs(run), tuple(after), prepare)


def replay_task(run: RunDir, *, trial: str | None, overrides: Sequence[str], after: Sequence[RunDir]) -> Task:
    """Begin a replay once runs are over; the replay is then sent like any run.

    Raises:
        RunError: if the run has no population.
    """
    check_population(run)
    arguments = {"trial": trial, "overrides": list(overrides)}
    return Task("replay", (run,), arguments, after=tuple(after))


def collect_task(runs: Sequence[RunDir], *, after: Sequence[RunDir] = ()) -> Task:
    """Write the tables of runs."""
    return Task("collect", tuple(dict.fromkeys(runs)), {}, after=tuple(after))


def report_task(
    runs: Sequence[RunDir], *, output: Path | None = None, png: Path | None = None, after: Sequence[RunDir] = ()
) -> Task:
    """Write the report of runs."""
    runs = tuple(dict.fromkeys(runs))
    if output is None and len(runs) > 1:
        output = Path(FILE)
    places = {"output": output, "png": png}
    arguments = {name: str(path.absolute()) if path else None for name, path in places.items()}
    return Task("report", runs, arguments, after=tuple(after))


def _needs(run: RunDir) -> TrialResources:
    return TrialResources.model_validate(run.record()["spec"]["trial"])
