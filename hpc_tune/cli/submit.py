"""Commands that send a search to Slurm, and the one that its job script ends with."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Literal

import click

from hpc_tune.cli.options import json_option

__all__ = ["conclude", "submit"]

LONGEST_GRACE = 3600.0
"""Seconds that a preempted job waits for Slurm to end it."""


def allocation_overrides(**given: object) -> tuple[str, ...]:
    """Return the ``--set`` texts that options on the command line stand for."""
    return tuple(f"allocation.{key}={_toml(value)}" for key, value in given.items() if value is not None)


@click.command()
@click.argument("experiment", type=click.Path(path_type=Path), required=False)
@click.option("-N", "--nodes", type=click.IntRange(min=1), help="Nodes.  [default: the experiment's, else 1]")
@click.option("--min-nodes", type=click.IntRange(min=1), help="Start trials when so many have joined.  [default: 1]")
@click.option("--gpus-per-node", type=click.IntRange(min=0), help="GPUs of each node.  [default: what the trials need]")
@click.option("--cpus-per-node", type=click.IntRange(min=1), help="CPUs of each node.  [default: what goes with them]")
@click.option("--memory", metavar="SIZE", help="Memory of each node, as in Slurm's --mem.")
@click.option("-t", "--time", metavar="TIME", help='Walltime: "2h", "90m", "02:00:00", "1-12:00:00".')
@click.option("-p", "--partition", help="Slurm's partition.")
@click.option("-q", "--qos", help="Slurm's quality of service.")
@click.option("-A", "--account", help="Slurm's account.")
@click.option("-C", "--constraint", help="Features that the nodes must have, as in Slurm's --constraint.")
@click.option("-x", "--exclude", metavar="NODES", help="Nodes that the job shall not get.")
@click.option("--site", help="The cluster's profile; see hpc-tune site list.  [default: found by the cluster's name]")
@click.option(
    "--sbatch", "directives", multiple=True, metavar="NAME=VALUE", help="A further sbatch option; repeatable."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the file; repeatable.")
@click.option("--dry-run", is_flag=True, help="Print the job script and change nothing.")
@click.option(
    "--runs-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="HPC_TUNE_RUNS_DIR",
    help="Where the runs live.  [default: $HPC_TUNE_RUNS_DIR, the site's runs_dir, or ./runs]",
)
@json_option
def submit(
    experiment: Path | None,
    directives: tuple[str, ...],
    overrides: tuple[str, ...],
    dry_run: bool,
    runs_dir: Path | None,
    as_json: bool,
    **allocation: object,
) -> None:
    r"""Send the search of EXPERIMENT to Slurm.

    A Ray starts over the job's nodes and runs the trials; when the walltime is near they save, and the search goes on
    in the next attempt. The tables are written when it ends, however that comes.

    \b
    hpc-tune submit --nodes 4
    hpc-tune submit search.toml --nodes 2 --time 8h --partition gpu --set num_samples=100
    hpc-tune submit search.toml --dry-run > job.sbatch
    """
    from hpc_tune import operations, render
    from hpc_tune.slurm.client import Slurm

    chosen = experiment or operations.default_experiment(Path.cwd())
    changes = (*overrides, *allocation_overrides(**allocation), *_directives(directives))
    slurm = Slurm()
    planned = operations.plan(chosen, runs_dir=runs_dir, overrides=changes, slurm=slurm)
    if dry_run:
        click.echo(planned.script(planned.run_path), nl=False)
        return
    if not as_json:
        render.plan(planned)
    render.submitted(operations.submit(planned, overrides=changes, slurm=slurm), as_json=as_json)


def _directives(given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the ``--set`` texts of further sbatch options; one without a value is a flag."""
    split = (directive.removeprefix("--").partition("=") for directive in given)
    return tuple(f"allocation.sbatch.{name}={_toml(value) if sign else 'true'}" for name, sign, value in split)


def _toml(value: object) -> str:
    """Write a number or a text; TOML spells them as JSON does, but knows no pairs of surrogates."""
    return json.dumps(value, ensure_ascii=False)


@click.command(hidden=True)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--next", "way", type=click.Choice(["successor", "requeue", "none"]), default="successor")
def conclude(run: Path, way: Literal["successor", "requeue", "none"]) -> None:
    """Say how the attempt of this Slurm job ended, and see to the next one: the last line of a job script."""
    from hpc_tune import operations, render
    from hpc_tune.run import RunDir

    concluded = operations.conclude(RunDir(run.resolve()), way=way)
    render.concluded(concluded)
    if concluded.following.way == "slurm":
        threading.Event().wait(LONGEST_GRACE)  # a job that ended by itself would not be started again
    raise SystemExit(0 if concluded.following.way != "none" else concluded.outcome.exit_code)
