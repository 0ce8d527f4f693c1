"""What commands share that can be jobs of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpc_tune.cli.allocation import allocation_overrides, job_options
from hpc_tune.cli.options import find

if TYPE_CHECKING:
    from hpc_tune.operations.followup_jobs import Task
    from hpc_tune.run import RunDir

__all__ = ["after_option", "carry_out", "find_all", "follow_up_options", "is_job", "wait_option"]

after_option = click.option(
    "--after", "after", multiple=True, metavar="RUN", help="Begin when RUN is over, all its attempts; repeatable."
)
wait_option = click.option(
    "--wait/--no-wait", "waits", default=None, help="Return when it is over.  [default: on Slurm --no-wait]"
)
job_option = click.option(
    "--job", is_flag=True, help="As a Slurm job of its own; where there is no Slurm, as a process of its own."
)


def follow_up_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a follow-up that can be a job of its own on any node."""
    return job_option(after_option(wait_option(job_options(command))))


def find_all(runs_dir: Path, runs: Sequence[str], after: Sequence[str]) -> tuple[list[RunDir], list[RunDir]]:
    """Return the runs that the user means, and those that are to be over before; where none are named, the latter."""
    before = [find(runs_dir, reference) for reference in after]
    return [find(runs_dir, reference) for reference in runs] or before or [find(runs_dir, None)], before


def is_job(job: bool, before: Sequence[RunDir], waits: bool | None, allocation: dict[str, Any]) -> bool:
    """Tell whether a command is to be a job of its own; options of a job without one make no sense."""
    if not (job or before) and (waits is not None or allocation_overrides(**allocation)):
        raise click.UsageError("options of a job go with --job or --after.")
    return job or bool(before)


def carry_out(task: Task, *, here: bool, waits: bool | None, as_json: bool, allocation: dict[str, Any]) -> None:
    """Do what a task says, or send it off, and say how it stands."""
    from hpc_tune import render
    from hpc_tune.operations.followup_jobs import carry_out as do
    from hpc_tune.slurm.client import Slurm

    changes = allocation_overrides(**allocation)
    with redirect_stdout(sys.stderr) if as_json else nullcontext():  # the user's function may print
        done = do(task, here=here, waits=waits, overrides=changes, slurm=Slurm())
    render.followed_up(done, task.runs[0], as_json=as_json)
    if done.state in ("failed", "cancelled"):
        raise SystemExit(1)
