"""Commands that send a search to Slurm, and the one that its job script ends with."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hpc_tune.cli.options import json_option

__all__ = ["conclude", "submit"]


def allocation_overrides(**given: object) -> tuple[str, ...]:
    """Return the ``--set`` texts that options on the command line stand for."""
    return tuple(f"allocation.{key}={json.dumps(value)}" for key, value in given.items() if value is not None)


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
    return tuple(f"allocation.sbatch.{name}={json.dumps(value) if sign else 'true'}" for name, sign, value in split)


@click.command(hidden=True)
@click.argument("run", type=click.Path(path_type=Path))
def conclude(run: Path) -> None:
    """Say how the attempt of this Slurm job ended, and write the tables: the last line of a job script."""
    from hpc_tune import operations, render
    from hpc_tune.run import RunDir

    concluded = operations.conclude(RunDir(run.resolve()))
    render.concluded(concluded)
    raise SystemExit(concluded.outcome.exit_code)
