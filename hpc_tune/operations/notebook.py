"""The commands as functions for notebooks and scripts, and a run as DataFrames and figures.

They take what the commands take, and return the values that the commands show.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_tune.errors import UsageError
from hpc_tune.operations.best import BestTrial, best
from hpc_tune.operations.chosen import default_experiments
from hpc_tune.operations.followup_jobs import carry_out
from hpc_tune.operations.followups import FollowUpStatus
from hpc_tune.operations.local import Ended
from hpc_tune.operations.local import resume as resume_here
from hpc_tune.operations.planning import plan
from hpc_tune.operations.replay import replay_here, replay_on_slurm
from hpc_tune.operations.report import Reported, report, view_of
from hpc_tune.operations.status import RunStatus
from hpc_tune.operations.status import status as status_of
from hpc_tune.operations.submit import Submitted, resubmit
from hpc_tune.operations.submit import submit as send
from hpc_tune.operations.tables import gather
from hpc_tune.operations.tasks import evaluate_task
from hpc_tune.run import RunDir, find_run
from hpc_tune.slurm.client import Slurm

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

__all__ = ["LoadedRun", "evaluate", "load_run", "replay", "resume", "status", "submit"]

Reference = str | Path | RunDir | None


class LoadedRun:
    """A run as it was when it was loaded.

    Attributes:
        run: the run's directory.
        trials: one row per trial, the columns of ``trials.csv``.
        history: one row per trial and iteration, the columns of ``history.csv``.
        summary: one row, the columns of ``summary.csv``.
    """

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._gathered = gather(run)
        self.trials: DataFrame = self._gathered.tables.trials
        self.history: DataFrame = self._gathered.tables.history
        self.summary: DataFrame = self._gathered.summary

    def __repr__(self) -> str:
        metric = self._gathered.info.metric
        value = self._gathered.best["best_value"] if self._gathered.best else "none yet"
        return f"<run {self.run.name}: {len(self.trials)} trials, best {metric} {value}>"

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name

    @property
    def path(self) -> Path:
        """The run's directory."""
        return self.run.path

    @cached_property
    def best(self) -> BestTrial:
        """The best trial with its config and checkpoint.

        Raises:
            RunError: if no trial has reported the metric yet.
        """
        return best(self.run)

    @property
    def checkpoints(self) -> dict[str, Path]:
        """The newest whole checkpoint of each trial that has one."""
        pairs = zip(self.trials["trial_id"], self.trials["checkpoint"], strict=True)
        return {str(trial_id): self.path / checkpoint for trial_id, checkpoint in pairs if checkpoint}

    @cached_property
    def exploits(self) -> DataFrame:
        """Who took over whose checkpoint in population based training, one row each, in the order of the events.

        A trial goes on from ``source_iteration`` of ``source_id``; ``iteration`` is how far it had come itself.
        """
        from pandas import DataFrame

        from hpc_tune.results.population import read_population

        columns = ["trial_id", "source_id", "iteration", "source_iteration"]
        exploits = read_population(self.run.storage).exploits
        return DataFrame([[getattr(each, name) for name in columns] for each in exploits], columns=columns)

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The plots of the report by name, each a figure of plotly."""
        from hpc_tune.results.report.figures import run_figures

        return run_figures(view_of(self._gathered))

    def report(self, output: str | Path | None = None) -> Reported:
        """Write the report; left out, to ``report.html`` in the run's directory."""
        return report([self.run], output=Path(output) if output is not None else None)


def load_run(run: Reference = None, *, runs_dir: str | Path | None = None) -> LoadedRun:
    """Read a run, which may be live, without Ray.

    Args:
        run: a directory, a name, the beginning of one, or None: the latest.
        runs_dir: where the runs live; left out, ``$HPC_TUNE_RUNS_DIR`` or ``./runs``.

    Raises:
        RunNotFound: if there is no such run.
    """
    return LoadedRun(_find(run, runs_dir))


def status(run: Reference = None, *, runs_dir: str | Path | None = None) -> RunStatus:
    """Tell how a run stands, as ``hpc-tune status`` does.

    Raises:
        RunNotFound: if there is no such run.
    """
    return status_of(_find(run, runs_dir))


def submit(
    experiment: str | Path | None = None,
    *,
    runs_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
    **allocation: Any,
) -> Submitted:
    """Send a search to Slurm, as ``hpc-tune submit`` does.

    Args:
        experiment: the experiment file; left out, the one that ``pyproject.toml`` names.
        runs_dir: where the run goes; left out, ``$HPC_TUNE_RUNS_DIR``, where the site says, or ``./runs``.
        overrides: ``KEY=VALUE`` texts that change keys of the file.
        **allocation: keys of ``[allocation]``, such as ``nodes=4, time="8h"``.

    Raises:
        ExperimentError: if the experiment is wrong, or asks for what the site does not have.
        SlurmError: if Slurm refuses.
    """
    chosen, *others = default_experiments(Path.cwd()) if experiment is None else [Path(experiment)]
    if others:
        raise UsageError("pyproject.toml names several experiments: name one")
    changes = (*overrides, *_changes(allocation))
    where = runs_dir or os.environ.get("HPC_TUNE_RUNS_DIR")
    slurm = Slurm()
    planned = plan(chosen, runs_dir=Path(where) if where else None, overrides=changes, slurm=slurm)
    return send(planned, overrides=changes, slurm=slurm)


def resume(
    run: Reference = None,
    *,
    here: bool = False,
    retry_errors: bool = False,
    more_samples: int = 0,
    runs_dir: str | Path | None = None,
    **allocation: Any,
) -> Submitted | Ended:
    """Continue a run, as ``hpc-tune resume`` does: on Slurm if it was submitted, else on this machine to its end.

    Raises:
        RunBusy: if the run is live.
        RunError: if there is nothing to continue.
    """
    found, changes = _find(run, runs_dir), _changes(allocation)
    if here and changes:
        raise UsageError("here=True takes no keys of an allocation: there is none on this machine")
    if not here and (changes or found.job_script.exists()):
        return resubmit(found, overrides=changes, retry_errors=retry_errors, more_samples=more_samples, slurm=Slurm())
    return resume_here(found, retry_errors=retry_errors, more_samples=more_samples)


def evaluate(
    run: Reference = None,
    *,
    trial: str | None = None,
    function: str | None = None,
    after: Sequence[Reference] = (),
    here: bool = False,
    wait: bool | None = None,
    runs_dir: str | Path | None = None,
    **allocation: Any,
) -> FollowUpStatus:
    """Score a checkpoint on held-out data, as ``hpc-tune evaluate`` does; once it is done, ``result`` has the metrics.

    Args:
        run: a directory, a name, the beginning of one, or None: the latest.
        trial: a trial's id, the beginning of it, or its number; None: the best.
        function: ``FILE.py:NAME``; None: as the experiment says.
        after: runs that have to be over before.
        here: in this process, also where there is Slurm.
        wait: return when it is over; None: only where there is no Slurm.
        runs_dir: where the runs live.
        **allocation: keys of ``[allocation]`` for its job on Slurm.

    Raises:
        RunError: if there is no such function or no checkpoint.
        SlurmError: if Slurm refuses.
    """
    before = [_find(each, runs_dir) for each in after]
    task = evaluate_task(_find(run, runs_dir), trial=trial, function=function, after=before)
    return carry_out(task, here=here, waits=wait, overrides=_changes(allocation), slurm=Slurm())


def replay(
    run: Reference = None,
    trial: str | None = None,
    *,
    here: bool = False,
    runs_dir: str | Path | None = None,
    **allocation: Any,
) -> Submitted | Ended:
    """Retrain along the schedule of a member of a population, as ``hpc-tune replay`` does.

    Raises:
        RunError: if the run has no population, or the trial no schedule.
    """
    found, changes, slurm = _find(run, runs_dir), _changes(allocation), Slurm()
    if slurm.is_installed and not here:
        return replay_on_slurm(found, trial, overrides=changes, slurm=slurm)
    if changes:
        raise UsageError("keys of an allocation are for Slurm: this replay runs on this machine")
    return replay_here(found, trial)


def _changes(allocation: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"allocation.{key}={json.dumps(value, ensure_ascii=False)}" for key, value in allocation.items())


def _find(run: Reference, runs_dir: str | Path | None) -> RunDir:
    if isinstance(run, RunDir):
        return run
    where = runs_dir or os.environ.get("HPC_TUNE_RUNS_DIR") or "runs"
    return find_run(Path(where), None if run is None else str(run))
