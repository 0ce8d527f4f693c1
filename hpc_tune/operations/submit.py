"""From an experiment to a Slurm job: plan it, create the run, send its script."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpc_tune.attempt import Submission
from hpc_tune.durable import write_text
from hpc_tune.errors import ExperimentError, RunError, SlurmError
from hpc_tune.experiment.capacity import Node, fit_trial, limited_by, slots
from hpc_tune.experiment.load import LoadedExperiment, load_experiment
from hpc_tune.jobscript import render_job_script
from hpc_tune.operations.sites import choose_site
from hpc_tune.request import JobRequest, check_request, request_notes, resolve_request
from hpc_tune.run import RunDir, stamped_name
from hpc_tune.site import Site
from hpc_tune.slurm.client import Slurm

__all__ = ["Plan", "Submitted", "plan", "put_on_record", "send", "submit"]

SentBy = Literal["submit", "resume", "successor"]

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

    def script(self, run_path: Path) -> str:
        """Return the job script, byte for byte."""
        return render_job_script(self.request, self.site, run=run_path, python=sys.executable)


@dataclass(frozen=True)
class Submitted:
    """A run that waits for its nodes."""

    run: RunDir
    job_id: str
    plan: Plan


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
    experiment = loaded.experiment
    chosen, site_from = choose_site(experiment.allocation.site, slurm)
    request = resolve_request(experiment.allocation, chosen, experiment.trial)
    if faults := check_request(request, chosen, experiment.trial):
        raise ExperimentError(experiment_file, faults)
    nodes = [Node(request.cpus_per_node, request.gpus_per_node)] * request.nodes
    trial = fit_trial(experiment.trial, nodes)
    at_once = slots(trial, nodes)
    checkpoints = experiment.checkpoint.keep or 1
    where = runs_dir or chosen.runs_path() or Path("runs")
    return Plan(
        loaded=loaded,
        site=chosen,
        site_from=site_from,
        request=request,
        run_path=where.absolute() / stamped_name(experiment.name),
        trials=experiment.total_trials,
        at_once=min(at_once, experiment.total_trials),
        limited_by="trials" if at_once >= experiment.total_trials else limited_by(trial, nodes[0]),
        files_per_trial=FILES_PER_TRIAL + FILES_PER_CHECKPOINT * checkpoints,
        free_files=_free_files(where),
        notes=tuple(request_notes(request, chosen)),
    )


def _free_files(path: Path) -> int | None:
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    found = os.statvfs(existing)
    return found.f_favail if found.f_files else None


def submit(planned: Plan, *, overrides: Sequence[str], slurm: Slurm) -> Submitted:
    """Create the run with everything that the job needs, then send its script.

    Raises:
        RunError: if the run directory cannot be created.
        SlurmError: if Slurm refuses; nothing of the run is left then.
    """
    seed = planned.loaded.experiment.seed
    run = RunDir.create(
        planned.run_path.parent,
        planned.loaded,
        overrides=overrides,
        seed=random.SystemRandom().randrange(2**32) if seed is None else seed,
        command=sys.argv,
    )
    try:
        job_id = send(run, planned.script(run.path), by="submit", slurm=slurm)
    except (SlurmError, RunError, OSError) as error:
        if not getattr(error, "outcome_unknown", False):  # the job may be there after all, and needs its run
            shutil.rmtree(run.path, ignore_errors=True)
        raise
    _link(run)
    return Submitted(run, job_id, planned)


def send(run: RunDir, script: str, *, by: SentBy, slurm: Slurm) -> str:
    """Write the job script of a run, send it to Slurm, and put the submission on record; return the job's id.

    Raises:
        SlurmError: if Slurm refuses.
    """
    run.jobs_dir.mkdir(mode=0o700, exist_ok=True)
    write_text(run.job_script, script)
    return put_on_record(run, slurm.submit(run.job_script), by=by)


def put_on_record(run: RunDir, sent: tuple[str, str], *, by: SentBy) -> str:
    """Put a submission on record; return the job's id."""
    job_id, cluster = sent
    Submission(job_id, cluster, time.time(), by).write(run.jobs_dir / f"{job_id}.json")
    return job_id


def _link(run: RunDir) -> None:
    """Have a run that lies elsewhere found in ``./runs``, where the other commands look for it."""
    here = Path("runs")
    if run.path.parent != here.resolve():
        with suppress(OSError):  # a convenience: the run's own path does as well
            here.mkdir(exist_ok=True)
            (here / run.name).symlink_to(run.path)
