"""How the end of a run that was cancelled looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hpc_tune.experiment.duration import format_seconds
from hpc_tune.render.text import to_json

if TYPE_CHECKING:
    from hpc_tune.operations.cancel import Cancelled

__all__ = ["cancelled"]


def cancelled(done: Cancelled, *, as_json: bool) -> None:
    """Say what was ended and how to go on."""
    if as_json:
        click.echo(to_json(_record(done)))
        return
    if done.is_nothing:
        click.echo(f"nothing of {done.run.name} is live; hpc-tune status {done.run.path} says how it stands")
        return
    if done.behind is not None:
        click.echo(f"cancelled: its turn behind {done.behind}, whose job goes on without it")
        click.echo(f"continue with: hpc-tune resume {done.run.path}")
        return
    click.echo(f"cancelled: {', '.join(_ended(done))} after {format_seconds(done.seconds)}")
    if done.is_follow_ups_alone:
        return
    if done.outcome is not None:
        click.echo(f"its attempt is {done.outcome.ending}: {done.outcome.reason}")
    elif done.running or done.process:
        click.echo("its attempt could not say how it ended; what its trials had saved before is kept")
    for name in done.goes_on:
        click.echo(f"its job goes on with {name}; to end that, too: hpc-tune cancel {name}")
    if done.left:
        click.echo(f"note: Slurm is still ending job {', '.join(done.left)}")
    click.echo(f"continue with: hpc-tune resume {done.run.path}")


def _ended(done: Cancelled) -> list[str]:
    waiting = [f"job {job_id}, which had not begun" for job_id in done.waiting]
    running = [f"job {job_id}" for job_id in done.running]
    followups = [f"follow-up {name}" for name in done.followups]
    return [*running, *waiting, *([done.process] if done.process else []), *followups]


def _record(done: Cancelled) -> dict[str, Any]:
    outcome = done.outcome
    return {
        "run": done.run.name,
        "path": str(done.run.path),
        "running_jobs": list(done.running),
        "waiting_jobs": list(done.waiting),
        "process": done.process,
        "followups": list(done.followups),
        "outcome": {"ending": outcome.ending, "reason": outcome.reason} if outcome else None,
        "left_jobs": list(done.left),
        "seconds": done.seconds,
        "behind": done.behind,
        "goes_on": list(done.goes_on),
    }
