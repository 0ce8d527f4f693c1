"""How a follow-up looks: its result, or how it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import click

from hpc_tune.experiment.duration import format_seconds
from hpc_tune.operations.followups import FollowUpStatus
from hpc_tune.render.text import number, to_json
from hpc_tune.run import RunDir

__all__ = ["followed_up", "followup_line", "followup_record"]


def followed_up(found: FollowUpStatus, run: RunDir, *, as_json: bool) -> None:
    """Show the result of a follow-up; of one that is not over, what to type."""
    if as_json:
        click.echo(to_json({"run": run.name, **followup_record(found)}))
        return
    for line in _lines(found, run):
        click.echo(line)


def _lines(found: FollowUpStatus, run: RunDir) -> Iterator[str]:
    if found.state != "done":
        yield f"{found.kind} of {run.name}: {found.state}{_because(found)}"
        if found.hint:
            yield f"hint: {found.hint}"
        elif found.log:
            yield f"see {found.log}"
        if found.state.is_live:
            yield f"follow it with: hpc-tune status {run.name}"
        return
    result = found.result
    if found.kind == "evaluate":
        at = "" if result["checkpoint_iteration"] is None else f", iteration {result['checkpoint_iteration']}"
        yield f"trial {result['trial']} of {run.name}{at}, scored by {result['function']}"
        yield from (f"  {name} = {number(value)}" for name, value in _flat(result["metrics"]))
        yield f"checkpoint: {result['checkpoint']}"
        yield f"kept in {found.path / 'outcome.json'}"
    else:
        yield f"{found.kind} of {run.name}: done{_because(found)}"
        yield from result.get("files", ())


def _because(found: FollowUpStatus) -> str:
    return f": {found.reason}" if found.reason else ""


def followup_line(found: FollowUpStatus) -> str:
    """Return a follow-up in a line of ``status``."""
    text = f"{found.name}: {found.state}"
    if found.started is not None and found.ended is not None:
        text += f" after {format_seconds(found.ended - found.started)}"
    text += _because(found)
    if found.state == "done" and found.kind == "evaluate":
        scores = ", ".join(f"{name} {number(value)}" for name, value in _flat(found.result["metrics"]))
        return f"{text}: {scores} (trial {found.result['trial']})"
    return f"{text}; see {found.log}" if found.log is not None and found.state in ("failed", "running") else text


def _flat(metrics: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def followup_record(found: FollowUpStatus) -> dict[str, Any]:
    """Return what ``--json`` shows of a follow-up."""
    return asdict(found) | {"log": str(found.log) if found.log else None, "path": str(found.path)}
