"""How logs look: each under a line that says which it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hpc_tune.operations.logs import Chunk, Log, tail
from hpc_tune.render.text import to_json
from hpc_tune.run import RunDir

__all__ = ["chunks", "logs"]

_KINDS = {"batch": "batch log of job", "node": "node", "driver": "driver", "output": "output of trial"}
_KINDS["error"] = "errors of trial"


def logs(run: RunDir, found: Sequence[Log], *, lines: int | None, as_json: bool) -> None:
    """Show the last lines of each log."""
    if as_json:
        click.echo(to_json({"run": run.name, "path": str(run.path), "logs": [_record(each, lines) for each in found]}))
        return
    for log in found:
        click.echo(_head(log))
        for line in tail(log.path, lines):
            click.echo(line)


def chunks(added: Iterable[Chunk]) -> None:
    """Show what is added to logs as it comes."""
    last: Log | None = None
    for chunk in added:
        if chunk.log != last:
            click.echo(_head(chunk.log))
            last = chunk.log
        click.echo(chunk.text, nl=not chunk.text.endswith("\n"))


def _head(log: Log) -> str:
    name = f" {log.name}" if log.name else ""
    attempt = f", attempt {log.attempt}" if log.attempt is not None else ""
    return f"==> {_KINDS[log.kind]}{name}{attempt}: {log.path} <=="


def _record(log: Log, lines: int | None) -> dict[str, Any]:
    return {
        "kind": log.kind,
        "name": log.name,
        "attempt": log.attempt,
        "path": str(log.path),
        "lines": tail(log.path, lines),
    }
