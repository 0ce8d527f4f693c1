"""What a submission would ask for and what would come of it, before anything is changed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_tune.errors import ExperimentError, Fault, refuse
from hpc_tune.experiment.capacity import Node, fit_trial, limited_by, slots
from hpc_tune.experiment.load import LoadedExperiment, load_experiments
from hpc_tune.jobscript import render_job_script
from hpc_tune.operations.sites import choose_site
from hpc_tune.request import (
    JobRequest,
    check_request,
    job_conflicts,
    request_notes,
    resolve_request,
    share_job,
)
from hpc_tune.run import RunDir, stamped_name
from hpc_tune.site import Site
from hpc_tune.slurm.client import Slurm

__all__ = ["Plan", "plan", "plan_again", "plan_together"]

FILES_PER_TRIAL = 4
"""``params.json``, ``result.json``, ``output.log`` and the trial's folder; TensorBoard's events are one more."""
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
    """Work out what a submission would do; nothing is changed. See :func:`plan_together`."""
    return plan_together([experiment_file], runs_dir=runs_dir, overrides=overrides, slurm=slurm)[0]


def plan_together(
    experiment_files: Sequence[Path], *, runs_dir: Path | None, overrides: Sequence[str], slurm: Slurm | None
) -> list[Plan]:
    """Work out what one job would do that runs several experiments, one after another; nothing is changed.

    Args:
        experiment_files: the experiments.
        runs_dir: where the runs go; None: where the site says, else ``./runs``.
        overrides: ``KEY=VALUE`` texts, for all of them.
        slurm: whom to ask which cluster this is; None: nobody.

    Raises:
        FaultyFile: if experiments are wrong, ask for what the site does not have, or cannot share a job.
        SlurmError: if there is no such site.
    """
    loaded = load_experiments(experiment_files, overrides)

    def run_path(experiment: LoadedExperiment, site: Site) -> Path:
        return (runs_dir or site.runs_path() or Path("runs")).absolute() / stamped_name(experiment.experiment.name)

    return _plans(loaded, run_path, slurm)


def plan_again(loaded: Sequence[LoadedExperiment], runs: Sequence[RunDir], slurm: Slurm | None) -> list[Plan]:
    """Work out what a further attempt of a run would do, and after it the runs that wait behind it.

    Raises:
        FaultyFile: if they ask for what the site does not have.
        SlurmError: if there is no such site.
    """
    paths = {id(each): run.path for each, run in zip(loaded, runs, strict=True)}
    return _plans(loaded, lambda each, site: paths[id(each)], slurm)


def _plans(
    loaded: Sequence[LoadedExperiment], run_path: Callable[[LoadedExperiment, Site], Path], slurm: Slurm | None
) -> list[Plan]:
    names = {each.experiment.allocation.site for each in loaded}
    sites = {name: choose_site(name, slurm) for name in names}
    chosen = [sites[each.experiment.allocation.site] for each in loaded]
    wanted = [
        resolve_request(each.experiment.allocation, site, each.experiment.trial)
        for each, (site, _) in zip(loaded, chosen, strict=True)
    ]
    requests = share_job(wanted)
    faulty = []
    for each, own, request, (site, _) in zip(loaded, wanted, requests, chosen, strict=True):
        faults = job_conflicts(own, wanted[0], loaded[0].path) + check_request(request, site, each.experiment.trial)
        if site.name != chosen[0][0].name:
            faults.append(Fault("allocation.site", f"is {site.name}, but {chosen[0][0].name} in {loaded[0].path}"))
        if faults:
            faulty.append(ExperimentError(each.path, faults))
    refuse(faulty)
    return [
        _plan(each, site, site_from, request, run_path(each, site))
        for each, (site, site_from), request in zip(loaded, chosen, requests, strict=True)
    ]


def _plan(loaded: LoadedExperiment, site: Site, site_from: str, request: JobRequest, path: Path) -> Plan:
    experiment = loaded.experiment
    nodes = [Node(request.cpus_per_node, request.gpus_per_node)] * request.nodes
    trial = fit_trial(experiment.trial, nodes)
    at_once = slots(trial, nodes)
    checkpoints = experiment.checkpoint.keep or 1
    return Plan(
        loaded=loaded,
        site=site,
        site_from=site_from,
        request=request,
        run_path=path,
        trials=experiment.total_trials,
        at_once=min(at_once, experiment.total_trials),
        limited_by="trials" if at_once >= experiment.total_trials else limited_by(trial, nodes[0]),
        files_per_trial=FILES_PER_TRIAL + experiment.tensorboard + FILES_PER_CHECKPOINT * checkpoints,
        free_files=_free_files(path),
        notes=tuple(request_notes(request, site)),
    )


def _free_files(path: Path) -> int | None:
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    found = os.statvfs(existing)
    return found.f_favail if found.f_files else None
