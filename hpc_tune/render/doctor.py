"""How a preflight and a diagnosis look."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from hpc_tune.render.text import to_json

if TYPE_CHECKING:
    from hpc_tune.operations.causes import Cause
    from hpc_tune.operations.diagnosis import Diagnosis
    from hpc_tune.operations.doctor import Preflight
    from hpc_tune.operations.machine_facts import MachineFacts

__all__ = ["diagnosis", "facts", "preflight"]

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def preflight(found: Preflight, *, as_json: bool) -> None:
    """Show what was looked at, a line each, and under what is wrong how to put it right."""
    if as_json:
        checks = [asdict(check) for check in found.checks]
        machines = [asdict(each) for each in found.facts]
        click.echo(to_json({"ready": found.is_ready, "checks": checks, "machines": machines}))
        return
    width = max(len(check.name) for check in found.checks)
    for check in found.checks:
        state = click.style(f"{check.state:<4}", fg=COLOURS[check.state])
        click.echo(f"{state}  {check.name:<{width}}  {check.sentence}")
        if check.fix:
            click.echo(f"{'':<4}  {'':<{width}}  fix: {check.fix}")


def facts(found: MachineFacts) -> None:
    """Print what a machine has in one line, after whatever the set-up of its environment has said."""
    click.echo("\n" + json.dumps(asdict(found)))


def diagnosis(found: Diagnosis, *, as_json: bool) -> None:
    """Say why a run failed, in a sentence with the fix."""
    if as_json:
        click.echo(to_json(_record(found)))
        return
    click.echo(f"{found.run.name}: {found.state}")
    click.echo(f"  {found.reason}")
    for number, cause in enumerate(found.causes):
        label = "cause" if number == 0 else "also"
        click.echo(f"  {label:<6} {cause.sentence}")
        click.echo(f"  {'fix':<6} {cause.fix}")
        click.echo(f"  {'seen':<6} {_seen(cause)}")
    if not found.causes:
        click.echo("  " + _nothing(found))


def _seen(cause: Cause) -> str:
    where = f"{cause.source} ({cause.path})" if cause.path else cause.source
    return f"in {where}: {cause.line}"


def _nothing(found: Diagnosis) -> str:
    if not found.is_failure:
        return "nothing is wrong"
    return f"cause  not known; read the logs: {found.next[0]}"


def _record(found: Diagnosis) -> dict[str, Any]:
    causes = [asdict(cause) | {"path": str(cause.path) if cause.path else None} for cause in found.causes]
    return {
        "run": found.run.name,
        "path": str(found.run.path),
        "state": found.state,
        "reason": found.reason,
        "causes": causes,
        "next": list(found.next),
    }
