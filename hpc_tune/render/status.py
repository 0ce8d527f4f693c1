"""How one run stands, as text, as a live view and as JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hpc_tune.experiment.duration import format_seconds
from hpc_tune.operations.attempts import AttemptStatus, NodeStatus
from hpc_tune.operations.status import RunStatus
from hpc_tune.progress import Best
from hpc_tune.render.followups import followup_line, followup_record
from hpc_tune.render.text import number, sparkline, states, to_json
from hpc_tune.slurm.commands import JobInfo
from hpc_tune.slurm.states import JobState

__all__ = ["job_record", "status", "status_lines", "status_record", "watched"]

LINE_INTERVAL = 10.0
"""Seconds between two lines of a live view in a pipe when nothing has changed."""

PHASES = {"gcs_up": "head up", "nodes_up": "all nodes up", "driver_up": "driver up"}
"""How phases read where the name itself would not do."""


def status(found: RunStatus, *, as_json: bool) -> None:
    """Show how a run stands."""
    click.echo(to_json(status_record(found)) if as_json else "\n".join(status_lines(found)))


def watched(views: Iterable[RunStatus]) -> None:
    """Show a live view until there are no more: redrawn on a terminal, a line now and then elsewhere."""
    if sys.stdout.isatty():
        _redrawn(views)
    else:
        _line_by_line(views)


def _redrawn(views: Iterable[RunStatus]) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, vertical_overflow="crop") as live:
        for each in views:
            # Text: rich takes square brackets in a plain string for markup
            live.update(Text("\n".join(status_lines(each))), refresh=True)


def _line_by_line(views: Iterable[RunStatus]) -> None:
    last: tuple[object, ...] = ()
    printed = float("-inf")
    for each in views:
        known = (each.state, each.reason, each.trials)
        if each.over:
            status(each, as_json=False)
        elif known != last or time.monotonic() - printed >= LINE_INTERVAL:
            click.echo(f"{time.strftime('%H:%M:%S')} {_line(each)}")
            last, printed = known, time.monotonic()


def _line(found: RunStatus) -> str:
    parts = [f"{found.state}: {found.reason}", f"{states(found.trials) or 0} of {found.total}"]
    if found.best:
        parts.append(f"best {found.metric} {number(found.best.value)}")
    return " · ".join(parts)


def status_lines(found: RunStatus) -> list[str]:
    """Return all there is to say about a run, as lines."""
    said = [f"{found.run.name}: {found.state}", f"  {found.reason}"]
    sections = _sections(found).items()
    return said + [f"  {head:<9} {text}" for label, texts in sections for head, text in _under(label, texts)]


def _under(label: str, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield lines with the label before the first one only."""
    for text in texts:
        yield label, text
        label = ""


def _sections(found: RunStatus) -> dict[str, list[str]]:
    return {
        "trials": [_trials(found)],
        "best": _best(found.best, found.metric),
        "curve": _curve(found.curve),
        "slurm": [_job(job, found) for job in found.jobs],
        "nodes": _nodes(found),
        "phases": [_phases(found.phases)] if found.phases else [],
        "attempts": [_attempt(each) for each in found.attempts],
        "follow-up": [followup_line(each) for each in found.followups],
        "results": [str(path) for path in found.tables],
        "note": list(found.notes),
        "next": list(found.next),
    }


def _trials(found: RunStatus) -> str:
    left = f"; about {format_seconds(found.eta)} left" if found.eta else ""
    return f"{states(found.trials) or 'none yet'} of {found.total}{left}"


def _best(best: Best | None, metric: str) -> list[str]:
    if best is None:
        return []
    config = ", ".join(f"{key}={number(value)}" for key, value in best.config.items())
    return [f"{metric} {number(best.value)} (trial {best.trial_id}, iteration {best.iteration})", config]


def _curve(points: tuple[float, ...]) -> list[str]:
    if len(points) < 2:
        return []
    return [f"{sparkline(points)} from {number(points[0])} to {number(points[-1])}"]


def _job(job: JobInfo, found: RunStatus) -> str:
    """Return a job as Slurm sees it; its reason only where the run's own sentence does not say it already."""
    text = f"job {job.job_id} {job.state.value}"
    if job.partition:
        text += f" in {job.partition}"
    if job.node_list:
        text += f" on {job.node_list}"
    if job.state is JobState.RUNNING and found.time_left is not None:
        text += f"; {format_seconds(found.time_left)} to its time limit"
    return f"{text}: {job.reason}" if job.reason and job.reason not in found.reason else text


def _nodes(found: RunStatus) -> list[str]:
    if not found.nodes_asked:
        return []
    joined = sum(node.state in ("up", "ended", "lost") for node in found.nodes)
    return [f"{joined} of {found.nodes_asked} joined", *(_node(each) for each in found.nodes if each.is_trouble)]


def _node(node: NodeStatus) -> str:
    log = f"; see {node.log}" if node.log else ""
    return f"{node.name} {node.state}: {node.reason}{log}"


def _phases(phases: Mapping[str, float]) -> str:
    return ", ".join(f"{PHASES.get(name, name.replace('_', ' '))} {seconds:.1f} s" for name, seconds in phases.items())


def _attempt(each: AttemptStatus) -> str:
    where = f" job {each.job_id}" if each.job_id else ""
    where += f" (restart {each.restart_count})" if each.restart_count else ""
    gap = f", {format_seconds(max(0, each.gap))} after the one before" if each.gap is not None else ""
    achieved = f"{_count(each.iterations, 'result')}, {_count(each.finished, 'trial')} ended"
    why = f"; {each.reason}" if each.ended is not None or each.started is None else ""
    lost = f"; without {', '.join(each.lost)}" if each.lost else ""
    return f"{each.number}{where}: {each.state}{_length(each)}{gap}; {achieved}{lost}{why}"


def _length(each: AttemptStatus) -> str:
    if each.started is None:
        return ""
    word = "for" if each.ended is None else "after"
    return f" {word} {format_seconds(max(0, (each.ended or time.time()) - each.started))}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def job_record(job: JobInfo) -> dict[str, Any]:
    """Return what ``--json`` shows of a job."""
    return asdict(job) | {"state": job.state.value}


def status_record(found: RunStatus) -> dict[str, Any]:
    """Return what ``--json`` shows of a run."""
    return {
        "run": found.run.name,
        "path": str(found.run.path),
        "state": found.state,
        "reason": found.reason,
        "live": found.live,
        "over": found.over,
        "created": found.created,
        "seen": found.seen,
        "jobs": [job_record(job) for job in found.jobs],
        "time_left_seconds": found.time_left,
        "metric": found.metric,
        "trials": {"total": found.total} | {state.lower(): count for state, count in found.trials.items()},
        "best": asdict(found.best) if found.best else None,
        "curve": list(found.curve),
        "eta_seconds": found.eta,
        "nodes_asked": found.nodes_asked,
        "nodes": [_node_record(node) for node in found.nodes],
        "phases_seconds": found.phases,
        "attempts": [asdict(each) for each in found.attempts],
        "tables": [str(path) for path in found.tables],
        "notes": list(found.notes),
        "next": list(found.next),
        "followups": [followup_record(each) for each in found.followups],
    }


def _node_record(node: NodeStatus) -> dict[str, Any]:
    return asdict(node) | {"log": _path(node.log)}


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)
