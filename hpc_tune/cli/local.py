"""Commands for a search on this machine, and for the tables of any run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpc_tune.cli.allocation import allocation_options, allocation_overrides
from hpc_tune.cli.followups import carry_out, find_all, follow_up_options, is_job
from hpc_tune.cli.options import experiments_argument, find, json_option, overrides_option, runs_dir_option

if TYPE_CHECKING:
    from hpc_tune.operations.local import Ended

__all__ = ["collect", "finish", "resume", "run"]

_cpus = click.option("--cpus", type=click.IntRange(min=1), help="CPUs for the trials.  [default: all of this machine]")
_gpus = click.option("--gpus", type=click.IntRange(min=0), help="GPUs for the trials.  [default: all that are visible]")


@click.command()
@experiments_argument
@overrides_option
@_cpus
@_gpus
@runs_dir_option
@json_option
def run(
    experiments: tuple[Path, ...],
    overrides: tuple[str, ...],
    cpus: int | None,
    gpus: int | None,
    runs_dir: Path,
    as_json: bool,
) -> None:
    """Run the whole search of EXPERIMENT on this machine, without Slurm.

    Ctrl-C saves the search, and "hpc-tune resume" continues it; a second Ctrl-C ends it at once. Several run one after
    another, also when one fails; each has a run of its own, and options are for all.

    \b
    hpc-tune run experiments/fashion_mnist/asha.toml
    hpc-tune run asha.toml pbt.toml
    hpc-tune run search.toml --set num_samples=2 --set 'space.lr={loguniform=[1e-4, 1e-1]}'
    """  # noqa: D301 - click's mark for lines to leave as they are
    from hpc_tune import render
    from hpc_tune.operations.chosen import default_experiments
    from hpc_tune.operations.local import run, searches

    chosen = experiments or default_experiments(Path.cwd())
    wanted = searches(chosen, overrides=overrides, cpus=cpus, gpus=gpus)
    results: list[Ended] = []
    for search in wanted:
        watcher = render.watcher(as_json=as_json)
        with watcher:
            result = run(search, runs_dir=runs_dir, watcher=watcher)
        results.append(result)
        if not as_json:
            render.ended(result)
        if result.stopped:
            break
    if as_json:
        click.echo(render.to_json(render.ended_records(results, of=len(wanted))))
    for left in wanted[len(results) :]:
        click.echo(f"not started: {left.loaded.path}", err=as_json)
    raise SystemExit(max(map(_exit_code, results)))


@click.command()
@click.argument("run", required=False)
@click.option("--retry-errors", is_flag=True, help="Also start failed trials again, from their last checkpoints.")
@click.option("--more-samples", type=click.IntRange(min=1), help="Extend the search by so many samples.")
@click.option("--here", is_flag=True, help="Continue a run of Slurm's on this machine.")
@_cpus
@_gpus
@allocation_options
@runs_dir_option
@json_option
def resume(
    run: str | None,
    retry_errors: bool,
    more_samples: int | None,
    here: bool,
    cpus: int | None,
    gpus: int | None,
    runs_dir: Path,
    as_json: bool,
    **allocation: Any,
) -> None:
    """Continue an interrupted or failed RUN, on Slurm if it was submitted, else on this machine.

    Finished trials stay finished, the others go on from their last checkpoints. The run keeps to the snapshot of
    the experiment that it began with; its allocation may change.

    \b
    hpc-tune resume
    hpc-tune resume my-search --nodes 2 --time 12h
    """  # noqa: D301 - click's mark for lines to leave as they are
    from hpc_tune import render
    from hpc_tune.operations.local import resume
    from hpc_tune.operations.submit import resubmit

    found, changes = find(runs_dir, run), allocation_overrides(**allocation)
    if here and changes:
        raise click.UsageError("--here takes no options of an allocation: there is none on this machine.")
    if not here and (changes or found.job_script.exists()):
        from hpc_tune.slurm.client import Slurm

        if cpus is not None or gpus is not None:
            raise click.UsageError("--cpus and --gpus are for --here; on Slurm say --cpus-per-node, --gpus-per-node.")
        sent = resubmit(
            found, overrides=changes, retry_errors=retry_errors, more_samples=more_samples or 0, slurm=Slurm()
        )
        render.submitted([sent], as_json=as_json)
        return
    watcher = render.watcher(as_json=as_json)
    with watcher:
        result = resume(
            found, retry_errors=retry_errors, more_samples=more_samples or 0, cpus=cpus, gpus=gpus, watcher=watcher
        )
    finish(result, as_json=as_json)


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@follow_up_options
@runs_dir_option
@json_option
def collect(
    runs: tuple[str, ...],
    job: bool,
    after: tuple[str, ...],
    waits: bool | None,
    runs_dir: Path,
    as_json: bool,
    **allocation: Any,
) -> None:
    """Write trials.csv, history.csv and summary.csv of each RUN, also of a live one.

    Reads the files that trials leave; needs neither Ray nor a cluster.
    """
    from hpc_tune import render
    from hpc_tune.operations.tables import collect

    found, before = find_all(runs_dir, runs, after)
    if is_job(job, before, waits, allocation):
        from hpc_tune.operations.tasks import collect_task

        task = collect_task(found, after=before)
        carry_out(task, here=False, waits=waits, as_json=as_json, allocation=allocation)
        return
    collected = [collect(each) for each in found]
    if as_json:
        click.echo(render.to_json({"runs": [render.collected_record(each) for each in collected]}))
        return
    for each in collected:
        click.echo(each.run.name)
        render.tables(each)


def finish(result: Ended, *, as_json: bool) -> None:
    """Show how an attempt ended; the exit code is the attempt's."""
    from hpc_tune import render

    if as_json:
        click.echo(render.to_json(render.ended_records([result], of=1)))
    else:
        render.ended(result)
    raise SystemExit(_exit_code(result))


def _exit_code(result: Ended) -> int:
    if result.outcome.ending != "completed" or result.collect_error is not None:
        return result.outcome.exit_code or 1
    return 0
