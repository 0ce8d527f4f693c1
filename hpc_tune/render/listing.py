"""How all runs of a directory look, a line each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import click

from hpc_tune.operations.listing import ListedRun, Listing
from hpc_tune.render.status import job_record
from hpc_tune.render.text import number, to_json
from hpc_tune.slurm.states import JobState

__all__ = ["listing", "listing_record"]

HEAD = ("RUN", "STATE", "TRIALS", "BEST", "ATTEMPTS", "AGE", "WHERE")
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def listing(found: Listing, *, as_json: bool) -> None:
    """Show the runs."""
    if as_json:
        click.echo(to_json(listing_record(found)))
        return
    if not found.runs:
        click.echo(f"there are no runs in {found.runs_dir}")
        return
    for line in _aligned([HEAD, *(_cells(each) for each in found.runs)]):
        click.echo(line)
    if found.silence:
        click.echo(f"note: Slurm could not be asked ({found.silence}); the states are those of the runs' own files")


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _cells(run: ListedRun) -> tuple[str, ...]:
    best = f"{run.metric} {number(run.best.value)}" if run.best else "-"
    return (
        run.run.name,
        run.state,
        f"{run.finished}/{run.total}",
        best,
        str(run.attempts),
        _age(run.created),
        _where(run),
    )


def _age(created: float | None) -> str:
    if created is None:
        return "-"
    seconds = max(0.0, time.time() - created)
    return next((f"{seconds / size:.0f} {unit}" for size, unit in _UNITS if seconds >= size), f"{seconds:.0f} s")


def _where(run: ListedRun) -> str:
    if run.job is not None:
        state = "" if run.job.state is JobState.UNKNOWN else f" {run.job.state.value}"
        return f"job {run.job.job_id}{state}"
    return f"local, {run.host}" if run.host else "-"


def listing_record(found: Listing) -> dict[str, Any]:
    """Return what ``--json`` shows of the runs."""
    return {"runs_dir": str(found.runs_dir), "runs": [_record(each) for each in found.runs], "note": found.silence}


def _record(run: ListedRun) -> dict[str, Any]:
    return {
        "run": run.run.name,
        "path": str(run.run.path),
        "state": run.state,
        "reason": run.reason,
        "created": run.created,
        "finished": run.finished,
        "total": run.total,
        "metric": run.metric,
        "best": {"trial_id": run.best.trial_id, "value": run.best.value} if run.best else None,
        "attempts": run.attempts,
        "host": run.host,
        "job": job_record(run.job) if run.job else None,
    }
