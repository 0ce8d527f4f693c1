"""Commands that show and end runs, on Slurm or on this machine."""

from __future__ import annotations

from contextlib import suppress
from math import inf
from pathlib import Path

import click

from hpc_tune.cli.options import find, json_option, runs_dir_option

__all__ = ["cancel", "list_runs", "logs", "status"]

LINES = 40
PAUSE = 2.0


@click.command("list")
@runs_dir_option
@json_option
def list_runs(runs_dir: Path, as_json: bool) -> None:
    """List all runs.

    Shows how each stands, its finished trials, its best value and where it is, with one question to Slurm for all.
    """
    from hpc_tune import render
    from hpc_tune.operations.listing import list_all

    render.listing(list_all(runs_dir), as_json=as_json)


@click.command()
@click.argument("run", required=False)
@click.option(
    "--watch",
    is_flag=False,
    flag_value=str(PAUSE),
    metavar="[SECONDS]",
    help=f"Show it again every so many seconds until the run is over.  [without a number: {PAUSE:g}]",
)
@runs_dir_option
@json_option
def status(run: str | None, watch: str | None, runs_dir: Path, as_json: bool) -> None:
    """Tell how RUN stands, and what to type next.

    Shows its job with Slurm's reason, its nodes, its trials and their best value, and every attempt. Reads only small
    files, and asks Slurm once. Also works while slurmctld is down, and when the job has long been forgotten.

    \b
    hpc-tune status
    hpc-tune status my-search --watch 5
    """  # noqa: D301 - click takes the backspace for "leave these lines as they are"
    from hpc_tune import render
    from hpc_tune.operations.status import status
    from hpc_tune.operations.status import watch as watched

    if watch is not None and as_json:
        raise click.UsageError("--json shows one instant: leave out --watch")
    if watch is None:
        render.status(status(find(runs_dir, run)), as_json=as_json)
        return
    seconds, run = _pause(watch, run)
    with suppress(KeyboardInterrupt):
        render.watched(watched(find(runs_dir, run), pause=seconds))


def _pause(watch: str, run: str | None) -> tuple[float, str | None]:
    """Tell the seconds of ``--watch 5`` from the run of ``--watch my-search``: click takes either."""
    try:
        seconds = float(watch)
    except ValueError:
        if run is None:
            return PAUSE, watch
        raise click.UsageError(f"--watch: expected seconds, got {watch!r}") from None
    if not 0.1 <= seconds < inf:
        raise click.UsageError(f"--watch: expected at least 0.1 seconds, got {watch}")
    return seconds, run


@click.command()
@click.argument("run", required=False)
@click.argument("trial", required=False)
@click.option("--batch", is_flag=True, help="What the job script said.")
@click.option("--driver", is_flag=True, help="What the driver and Ray Tune said.")
@click.option("--node", "nodes", multiple=True, metavar="NAME", help="What a node's agent and Ray said; repeatable.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Which attempt's.  [default: the last]")
@click.option(
    "--lines", type=click.IntRange(min=0), default=LINES, show_default=True, metavar="N", help="The last N of each."
)
@click.option("--full", is_flag=True, help="All lines.")
@click.option(
    "--follow", "-f", is_flag=True, help="Go on with what is added, over all attempts, until the run is over."
)
@runs_dir_option
@json_option
def logs(  # noqa: PLR0913, PLR0917 - one per option
    run: str | None,
    trial: str | None,
    batch: bool,
    driver: bool,
    nodes: tuple[str, ...],
    attempt: int | None,
    lines: int,
    full: bool,
    follow: bool,
    runs_dir: Path,
    as_json: bool,
) -> None:
    """Show the logs of RUN, or of one TRIAL.

    Without a choice: those of the last attempt's job, nodes and driver. TRIAL is an id, the beginning of one, or a
    trial's number; its logs are what it printed and its errors.

    \b
    hpc-tune logs
    hpc-tune logs my-search 3 --full
    hpc-tune logs my-search --node iris-172 --attempt 2
    """  # noqa: D301
    from hpc_tune import render
    from hpc_tune.operations.logs import Choice, logs
    from hpc_tune.operations.logs import follow as followed

    if follow and as_json:
        raise click.UsageError("--json shows one instant: leave out --follow")
    found = find(runs_dir, run)
    choice = Choice(trial, batch, driver, nodes, attempt)
    last = None if full else lines
    if not follow:
        render.logs(found, logs(found, choice), lines=last, as_json=as_json)
        return
    with suppress(KeyboardInterrupt):
        render.chunks(followed(found, choice, lines=last))


@click.command()
@click.argument("run", required=False)
@click.option("--now", is_flag=True, help="End it at once; what is newer than the last checkpoints is lost.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long trials may take to save before it is ended.",
)
@runs_dir_option
@json_option
def cancel(run: str | None, now: bool, wait: float, runs_dir: Path, as_json: bool) -> None:
    """End RUN so that it can be resumed.

    Ends all its jobs, also waiting ones, or its driver on this machine; and its follow-ups, save replays, which are
    runs. Trials are asked to save first, and "hpc-tune resume" continues the run.
    """
    from hpc_tune import render
    from hpc_tune.operations.cancel import cancel

    def told(sentence: str) -> None:
        click.echo(sentence, err=as_json)

    done = cancel(find(runs_dir, run), now=now, wait=wait, told=told)
    render.cancelled(done, as_json=as_json)
