"""How the best trial and a written report look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpc_tune.render.text import number, to_json

if TYPE_CHECKING:
    from hpc_tune.operations.best import BestTrial
    from hpc_tune.operations.report import Reported

__all__ = ["best", "reported"]


def best(found: BestTrial, *, exported: Path | None, as_json: bool) -> None:
    """Show the best trial, and where it was copied to."""
    if as_json:
        click.echo(to_json(_best_record(found, exported)))
        return
    click.echo(
        f"{found.metric} {number(found.value)}: trial {found.trial_id} of {found.run.name}, iteration {found.iteration}"
    )
    click.echo(found.toml, nl=False)
    click.echo(_checkpoint(found))
    if exported is not None:
        click.echo(f"exported to {exported}")


def _checkpoint(found: BestTrial) -> str:
    checkpoint = found.checkpoint
    if checkpoint is None:
        return "checkpoint: none is left"
    value = "" if checkpoint.value is None else f", {found.metric} {number(checkpoint.value)}"
    at = "" if checkpoint.iteration is None else f" (iteration {checkpoint.iteration}{value})"
    return f"checkpoint: {checkpoint.path}{at}"


def _best_record(found: BestTrial, exported: Path | None) -> dict[str, Any]:
    checkpoint = found.checkpoint
    return {
        "run": found.run.name,
        "path": str(found.run.path),
        "metric": found.metric,
        "mode": found.mode,
        "trial": found.trial_id,
        "status": found.status,
        "value": found.value,
        "iteration": found.iteration,
        "config": found.config,
        "checkpoint": str(checkpoint.path) if checkpoint else None,
        "checkpoint_iteration": checkpoint.iteration if checkpoint else None,
        "checkpoint_value": checkpoint.value if checkpoint else None,
        "exported": str(exported) if exported else None,
    }


def reported(written: Reported, *, as_json: bool) -> None:
    """Say where the report is."""
    if as_json:
        record = {
            "runs": [run.name for run in written.runs],
            "file": str(written.file),
            "bytes": written.size,
            "plots": list(written.plots),
            "tables": [str(path) for path in written.tables],
            "images": [str(path) for path in written.images],
        }
        click.echo(to_json(record))
        return
    click.echo(f"report: {written.file} ({written.size / 1e6:.1f} MB, {len(written.plots)} plots)")
    if written.images:
        click.echo(f"images: {len(written.images)} PNG files in {written.images[0].parent}")
