"""How a submission looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from hpc_tune.experiment.duration import format_seconds
from hpc_tune.render.text import to_json

if TYPE_CHECKING:
    from hpc_tune.operations.planning import Plan
    from hpc_tune.operations.submit import Submitted
    from hpc_tune.request import JobRequest

__all__ = ["plans", "submitted"]

_NEXT = {
    "successor": "then a successor job goes on",
    "requeue": "then the job requeues itself",
    "none": "then hpc-tune resume goes on",
}


def plans(planned: Sequence[Plan]) -> None:
    """Say in a few lines what a submission asks for and what comes of it."""
    for line in _lines(planned):
        click.echo(line)
    for note in dict.fromkeys(note for each in planned for note in each.notes):
        click.echo(f"note: {note}")


def _lines(planned: Sequence[Plan]) -> Iterator[str]:
    request, site = planned[0].request, planned[0].site
    where = f"partition {request.partition}" if request.partition else "the default partition"
    yield f"asks for {_nodes(request)} in {where} of {site.name} ({planned[0].site_from})"
    for each in planned:
        if len(planned) > 1:
            yield f"{each.loaded.path}:"
        yield f"trials   {each.trials}, {each.at_once} at a time, limited by the number of {each.limited_by}"
        files = each.files_per_trial * each.trials
        free = f"; {each.free_files:,} are free" if each.free_files is not None else ""
        yield f"files    about {each.files_per_trial} per trial, {files:,} in all{free}"
    walltime = format_seconds(request.time) if request.time else "the partition's default"
    grace = format_seconds(request.grace)
    yield f"walltime {walltime}; {grace} before its end the search is saved, {_NEXT[site.next_attempt]}"


def _nodes(request: JobRequest) -> str:
    each = f"{request.cpus_per_node} CPUs"
    if request.gpus_per_node:
        each += f" and {request.gpus_per_node} GPUs" + (f" ({request.gpu_type})" if request.gpu_type else "")
    return f"1 node with {each}" if request.nodes == 1 else f"{request.nodes} nodes with {each} each"


def scripts(planned: Sequence[Plan], *, as_json: bool) -> None:
    """Print the job scripts that a submission would send, and nothing else; as JSON with what it asks for."""
    texts = [each.script(each.run_path) for each in planned]
    if not as_json:
        click.echo("\n".join(texts), nl=False)
        return
    records = [
        {"path": str(plan.run_path), **_planned(plan), "notes": list(plan.notes), "script": text}
        for plan, text in zip(planned, texts, strict=True)
    ]
    click.echo(to_json({"runs": records} if len(records) > 1 else records[0]))


def submitted(results: Sequence[Submitted], *, as_json: bool) -> None:
    """Name the job and the run, or the runs that follow one another in it, and what to type next."""
    first, *others = results
    if as_json:
        records = [_record(each) for each in results]
        click.echo(to_json({"runs": records} if others else records[0]))
        return
    for note in first.notes:
        click.echo(f"note: {note}")
    click.echo(f"job      {first.job_id}, run {first.run.name}; follow it with: hpc-tune status {first.run.name}")
    for each in others:
        click.echo(f"         then, in the same job, run {each.run.name}")


def _record(result: Submitted) -> dict[str, Any]:
    return {
        "run": result.run.name,
        "path": str(result.run.path),
        "job_id": result.job_id,
        **_planned(result.plan),
        "notes": [*result.plan.notes, *result.notes],
    }


def _planned(plan: Plan) -> dict[str, Any]:
    return {
        "site": plan.site.name,
        "nodes": plan.request.nodes,
        "gpus_per_node": plan.request.gpus_per_node,
        "cpus_per_node": plan.request.cpus_per_node,
        "time_seconds": plan.request.time,
        "trials": plan.trials,
        "trials_at_once": plan.at_once,
        "limited_by": plan.limited_by,
        "files_per_trial": plan.files_per_trial,
        "free_files": plan.free_files,
    }
