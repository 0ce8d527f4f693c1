"""Commands that send a search to Slurm, and the one that its job script ends with."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal

import click

from hpc_tune.cli.allocation import allocation_options, allocation_overrides
from hpc_tune.cli.options import experiments_argument, json_option, overrides_option

__all__ = ["conclude", "submit"]

LONGEST_GRACE = 3600.0
"""Seconds that a preempted job waits for Slurm to end it."""


@click.command()
@experiments_argument
@allocation_options
@overrides_option
@click.option("--dry-run", is_flag=True, help="Print the job script and change nothing.")
@click.option(
    "--runs-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="HPC_TUNE_RUNS_DIR",
    help="Where the runs live.  [default: $HPC_TUNE_RUNS_DIR, the site's runs_dir, or ./runs]",
)
@json_option
def submit(
    experiments: tuple[Path, ...],
    overrides: tuple[str, ...],
    dry_run: bool,
    runs_dir: Path | None,
    as_json: bool,
    **allocation: Any,
) -> None:
    """Send the search of EXPERIMENT to Slurm.

    A Ray starts over the job's nodes and runs the trials; when the walltime is near they save, and the search goes on
    in the next attempt. The tables are written when it ends, however that comes. Several share one job, one after
    another, also when one fails: each has a run of its own, options are for all, and the job has as many nodes, CPUs
    and GPUs as the one that needs most.

    \b
    hpc-tune submit --nodes 4
    hpc-tune submit asha.toml pbt.toml --time 12h
    hpc-tune submit search.toml --nodes 2 --time 8h --partition gpu --set num_samples=100
    hpc-tune submit search.toml --dry-run > job.sbatch
    """  # noqa: D301 - click's mark for lines to leave as they are
    from hpc_tune import render
    from hpc_tune.operations.chosen import default_experiments
    from hpc_tune.operations.planning import plan_together
    from hpc_tune.operations.submit import submit_together
    from hpc_tune.slurm.client import Slurm

    chosen = experiments or default_experiments(Path.cwd())
    changes = (*overrides, *allocation_overrides(**allocation))
    slurm = Slurm()
    plans = plan_together(chosen, runs_dir=runs_dir, overrides=changes, slurm=slurm)
    if dry_run:
        render.scripts(plans, as_json=as_json)
        return
    if not as_json:
        render.plans(plans)
    render.submitted(submit_together(plans, overrides=changes, slurm=slurm), as_json=as_json)


@click.command(hidden=True)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--next", "way", type=click.Choice(["successor", "requeue", "none"]), default="successor")
@click.option("--end-job", is_flag=True, help="The job's script has died with its node: end the job.")
def conclude(run: Path, way: Literal["successor", "requeue", "none"], end_job: bool) -> None:
    """Say how the attempt of this Slurm job ended, and see to the next one: the last line of a job script."""
    from hpc_tune import render
    from hpc_tune.operations.conclude import conclude
    from hpc_tune.run import RunDir

    concluded = conclude(RunDir(run.resolve()), way=way, end_job=end_job)
    render.concluded(concluded)
    if concluded.following.way == "slurm":
        threading.Event().wait(LONGEST_GRACE)  # a job that ended by itself would not be started again
    raise SystemExit(0 if concluded.following.way != "none" else concluded.outcome.exit_code)
