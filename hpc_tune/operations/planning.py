"""What a submission would ask for and what would come of it, before anything is changed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_tune.errors import ExperimentError
from hpc_tune.experiment.capacity import Node, fit_trial, limited_by, slots
from hpc_tune.experiment.load import LoadedExperiment, load_experiment
from hpc_tune.jobscript import render_job_script
from hpc_tune.operations.sites import choose_site
from hpc_tune.request import JobRequest, check_request, request_notes, resolve_request
from hpc_tune.run import RunDir, stamped_name
from hpc_tune.site import Site
from hpc_tune.slurm.client import Slurm

__all__ = ["Plan", "plan", "plan_again"]

FILES_PER_TRIAL = 4
"""``params.json``, ``result.json``, ``output.log`` and the trial's folder."""
FILES_PER_CHECKPOINT = 2
"""A folder and, as a rule, one file in it."""


@dataclass(frozen=True)
class Plan:
    """What a submission will ask for and what comes of it."""

    loaded: LoadedExperiment
    site: Site
    site_from: str
    """How the site was found, for people."""
    request: JobRequest
    run_path: Path
    """Where the run is going to be."""
    trials: int
    at_once: int
    """How many trials can run at the same time."""
    limited_by: str
    """What keeps it from being more: ``GPUs``, ``CPUs`` or ``trials``."""
    files_per_trial: int
    free_files: int | None
    """How many files the file system has room for; None where it does not count them."""
    notes: tuple[str, ...]
    """What to know of a request that is legal."""

    def script(self, run_path: Path, *, retry_errors: bool = False) -> str:
        """Return the job script, byte for byte."""
        python = sys.executable
        return render_job_script(self.request, self.site, run=run_path, python=python, retry_errors=retry_errors)


def plan(experiment_file: Path, *, runs_dir: Path | None, overrides: Sequence[str], slurm: Slurm | None) -> Plan:
    """Work out what a submission would do; nothing is changed.

    Args:
        experiment_file: the experiment.
        runs_dir: where the run goes; None: where the site says, else ``./runs``.
        overrides: ``KEY=VALUE`` texts.
        slurm: whom to ask which cluster this is; None: nobody.

    Raises:
        ExperimentError: if the experiment is wrong, or asks for what the site does not have.
        SlurmError: if there is no such site.
    """
    loaded = load_experiment(experiment_file, overrides)

    def run_path(site: Site) -> Path:
        return (runs_dir or site.runs_path() or Path("runs")).absolute() / stamped_name(loaded.experiment.name)

    return _plan(loaded, run_path, slurm)


def plan_again(loaded: LoadedExperiment, run: RunDir, slurm: Slurm | None) -> Plan:
    """Work out what a further attempt of a run would do.

    Raises:
        ExperimentError: if it asks for what the site does not have.
        SlurmError: if there is no such site.
    """
    return _plan(loaded, lambda site: run.path, slurm)


def _plan(loaded: LoadedExperiment, run_path: Callable[[Site], Path], slurm: Slurm | None) -> Plan:
    experiment = loaded.experiment
    chosen, site_from = choose_site(experiment.allocation.site, slurm)
    request = resolve_request(experiment.allocation, chosen, experiment.trial)
    if faults := check_request(request, chosen, experiment.trial):
        raise ExperimentError(loaded.path, faults)
    nodes = [Node(request.cpus_per_node, request.gpus_per_node)] * request.nodes
    trial = fit_trial(experiment.trial, nodes)
    at_once = slots(trial, nodes)
    checkpoints = experiment.checkpoint.keep or 1
    path = run_path(chosen)
    return Plan(
        loaded=loaded,
        site=chosen,
        site_from=site_from,
        request=request,
        run_path=path,
        trials=experiment.total_trials,
        at_once=min(at_once, experiment.total_trials),
        limited_by="trials" if at_once >= experiment.total_trials else limited_by(trial, nodes[0]),
        files_per_trial=FILES_PER_TRIAL + FILES_PER_CHECKPOINT * checkpoints,
        free_files=_free_files(path),
        notes=tuple(request_notes(request, chosen)),
    )


def _free_files(path: Path) -> int | None:
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    found = os.statvfs(existing)
    return found.f_favail if found.f_files else None
