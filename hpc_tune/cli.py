"""The command line. Each command calls one operation and has its result rendered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpc_tune import __version__
from hpc_tune.errors import HpcTuneError

if TYPE_CHECKING:
    from hpc_tune.operations import Ended
    from hpc_tune.run import RunDir

__all__ = ["cli", "main"]


class _Commands(click.Group):
    """One place where errors become messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HpcTuneError as failure:
            from hpc_tune import render

            render.error(failure)
            ctx.exit(failure.exit_code)
        except BrokenPipeError:  # the reader of a pipe has left; click ends quietly
            raise
        except OSError as failure:
            where = f"{failure.filename}: " if failure.filename else ""
            click.echo(f"error: {where}{failure.strerror or failure}", err=True)
            ctx.exit(1)


_runs_dir = click.option(
    "--runs-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="HPC_TUNE_RUNS_DIR",
    default=Path("runs"),
    show_default="./runs, or $HPC_TUNE_RUNS_DIR",
    help="Where the runs live.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
_cpus = click.option("--cpus", type=click.IntRange(min=1), help="CPUs for the trials.  [default: all of this machine]")
_gpus = click.option("--gpus", type=click.IntRange(min=0), help="GPUs for the trials.  [default: all that are visible]")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="hpc-tune")
def cli() -> None:
    """Hyperparameter searches with Ray Tune: one experiment file, one command, every result in a CSV.

    EXPERIMENT is a .toml, .json or .py file. RUN is a directory, a run's name, the beginning of one, or left out:
    the latest run.

    Exit codes: 0 done, 1 failed or interrupted, 2 usage or a wrong experiment file, 3 run not found or busy,
    4 Slurm refused or is missing, 5 all trials failed.
    """


@cli.command()
@click.argument("experiment", type=click.Path(path_type=Path), required=False)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the file; repeatable.")
@_cpus
@_gpus
@_runs_dir
@_json
def run(
    experiment: Path | None,
    overrides: tuple[str, ...],
    cpus: int | None,
    gpus: int | None,
    runs_dir: Path,
    as_json: bool,
) -> None:
    r"""Run the whole search of EXPERIMENT on this machine, without Slurm.

    Ctrl-C saves the search, and "hpc-tune resume" continues it; a second Ctrl-C ends it at once.

    \b
    hpc-tune run experiments/fashion_mnist/asha.toml
    hpc-tune run search.toml --set num_samples=2 --set 'space.lr={loguniform=[1e-4, 1e-1]}'
    """
    from hpc_tune import operations, render

    chosen = experiment or operations.default_experiment(Path.cwd())
    watcher = render.watcher(as_json=as_json)
    with watcher:
        result = operations.run(chosen, runs_dir=runs_dir, overrides=overrides, cpus=cpus, gpus=gpus, watcher=watcher)
    _finish(result, as_json=as_json)


@cli.command()
@click.argument("run", required=False)
@click.option("--retry-errors", is_flag=True, help="Also start failed trials again, from their last checkpoints.")
@_cpus
@_gpus
@_runs_dir
@_json
def resume(
    run: str | None, retry_errors: bool, cpus: int | None, gpus: int | None, runs_dir: Path, as_json: bool
) -> None:
    """Continue an interrupted or failed RUN on this machine.

    Finished trials stay finished, the others go on from their last checkpoints. The run keeps to the snapshot of
    the experiment that it began with.
    """
    from hpc_tune import operations, render

    watcher = render.watcher(as_json=as_json)
    with watcher:
        result = operations.resume(
            _find(runs_dir, run), retry_errors=retry_errors, cpus=cpus, gpus=gpus, watcher=watcher
        )
    _finish(result, as_json=as_json)


@cli.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@_runs_dir
@_json
def collect(runs: tuple[str, ...], runs_dir: Path, as_json: bool) -> None:
    """Write trials.csv, history.csv and summary.csv of each RUN, also of a live one.

    Reads the files that trials leave; needs neither Ray nor a cluster.
    """
    from hpc_tune import operations, render

    collected = [operations.collect(_find(runs_dir, reference)) for reference in runs or (None,)]
    if as_json:
        click.echo(render.to_json({"runs": [render.collected_record(each) for each in collected]}))
        return
    for each in collected:
        click.echo(each.run.name)
        render.tables(each)


def _find(runs_dir: Path, reference: str | None) -> RunDir:
    from hpc_tune.run import find_run

    return find_run(runs_dir, reference)


def _finish(result: Ended, *, as_json: bool) -> None:
    from hpc_tune import render

    render.ended(result, as_json=as_json)
    if result.outcome.ending != "completed" or result.collect_error is not None:
        raise SystemExit(result.outcome.exit_code or 1)


def main() -> None:
    """Run the command line; the entry point of ``hpc-tune``."""
    cli(prog_name="hpc-tune")
