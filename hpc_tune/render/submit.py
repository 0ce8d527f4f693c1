"""How a submission looks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from hpc_tune.experiment.duration import format_seconds
from hpc_tune.operations import Plan, Submitted
from hpc_tune.render.text import to_json
from hpc_tune.request import JobRequest

__all__ = ["plan", "submitted"]

_NEXT = {
    "successor": "then a successor job goes on",
    "requeue": "then the job requeues itself",
    "none": "then hpc-tune resume goes on",
}


def plan(planned: Plan) -> None:
    """Say in a few lines what a submission asks for and what comes of it."""
    for line in _lines(planned):
        click.echo(line)
    for note in planned.notes:
        click.echo(f"note: {note}")


def _lines(planned: Plan) -> Iterator[str]:
    request, site = planned.request, planned.site
    where = f"partition {request.partition}" if request.partition else "the default partition"
    yield f"asks for {_nodes(request)} in {where} of {site.name} ({planned.site_from})"
    yield f"trials   {planned.trials}, {planned.at_once} at a time, limited by the number of {planned.limited_by}"
    files = planned.files_per_trial * planned.trials
    free = f"; {planned.free_files:,} are free" if planned.free_files is not None else ""
    yield f"files    about {planned.files_per_trial} per trial, {files:,} in all{free}"
    walltime = format_seconds(request.time) if request.time else "the partition's default"
    grace = format_seconds(request.grace)
    yield f"walltime {walltime}; {grace} before its end the search is saved, {_NEXT[site.next_attempt]}"


def _nodes(request: JobRequest) -> str:
    each = f"{request.cpus_per_node} CPUs"
    if request.gpus_per_node:
        each += f" and {request.gpus_per_node} GPUs" + (f" ({request.gpu_type})" if request.gpu_type else "")
    return f"1 node with {each}" if request.nodes == 1 else f"{request.nodes} nodes with {each} each"


def submitted(result: Submitted, *, as_json: bool) -> None:
    """Name the job and the run, and what to type next."""
    if as_json:
        click.echo(to_json(_record(result)))
        return
    for note in result.notes:
        click.echo(f"note: {note}")
    click.echo(f"job      {result.job_id}, run {result.run.name}; follow it with: hpc-tune status {result.run.name}")


def _record(result: Submitted) -> dict[str, Any]:
    request = result.plan.request
    return {
        "run": result.run.name,
        "path": str(result.run.path),
        "job_id": result.job_id,
        "site": result.plan.site.name,
        "nodes": request.nodes,
        "gpus_per_node": request.gpus_per_node,
        "cpus_per_node": request.cpus_per_node,
        "time_seconds": request.time,
        "trials": result.plan.trials,
        "trials_at_once": result.plan.at_once,
        "limited_by": result.plan.limited_by,
        "files_per_trial": result.plan.files_per_trial,
        "free_files": result.plan.free_files,
        "notes": [*result.plan.notes, *result.notes],
    }
