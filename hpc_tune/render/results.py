"""How an attempt's end and a run's tables look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from hpc_tune.render.text import STATE_WORDS, number, states

if TYPE_CHECKING:
    from hpc_tune.operations.conclude import Concluded
    from hpc_tune.operations.local import Ended
    from hpc_tune.operations.tables import Collected

__all__ = ["collected_record", "concluded", "ended", "ended_records", "tables"]


def ended(result: Ended) -> None:
    """Show how an attempt ended, the answer, and where the tables are."""
    click.echo(f"{result.outcome.ending}: {result.outcome.reason}")
    _left_behind(result)
    if result.outcome.ending == "interrupted":
        click.echo(f"continue with: hpc-tune resume {result.run.path}")


def concluded(result: Concluded) -> None:
    """Say in the batch log how the attempt ended, and where the tables are."""
    click.echo(f"attempt {result.attempt.number}: {result.outcome.ending}: {result.outcome.reason}")
    _left_behind(result)
    if result.following.sentence:
        click.echo(result.following.sentence)
    if result.next_run:
        click.echo(result.next_run)


def _left_behind(result: Ended | Concluded) -> None:
    """Show what to do about the end of an attempt, and its tables or why there are none."""
    if result.outcome.hint:
        click.echo(f"hint: {result.outcome.hint}")
    if result.collected is not None:
        tables(result.collected)
    if result.collect_error is not None:
        click.echo(f"error: {result.collect_error}", err=True)


def tables(collected: Collected) -> None:
    """Show the best trial, how many there are of each state, and the files."""
    summary = collected.summary
    counts = {state: summary.get(state.lower(), 0) for state in STATE_WORDS}
    click.echo(f"trials: {states(counts) or 'none yet'}")
    if collected.best is not None:
        best = collected.best
        value, iteration = number(best["best_value"]), int(best["best_iteration"])
        click.echo(f"best {summary['metric']}: {value} (trial {best['trial_id']}, iteration {iteration})")
        for key, setting in best.items():
            if key.startswith("config/"):
                click.echo(f"  {key.removeprefix('config/')} = {number(setting)}")
    if collected.warning:
        click.echo(f"note: {collected.warning}")
    click.echo("tables: " + " ".join(str(path) for path in collected.files))


def collected_record(collected: Collected) -> dict[str, Any]:
    """Return what ``--json`` shows of a run's tables."""
    return {
        "run": collected.run.name,
        "path": str(collected.run.path),
        "files": [str(path) for path in collected.files],
        "summary": collected.summary,
        "best": collected.best,
        "warning": collected.warning,
    }


def ended_records(results: Sequence[Ended], *, of: int) -> dict[str, Any]:
    """Return what ``--json`` shows of the ends of runs: of the only one an object, of several a list of such.

    Args:
        results: how they ended.
        of: how many there were to be.
    """
    records = [_ended_record(each) for each in results]
    return records[0] if of == 1 else {"runs": records}


def _ended_record(result: Ended) -> dict[str, Any]:
    record = {
        "run": result.run.name,
        "path": str(result.run.path),
        "attempt": result.attempt.number,
        "ending": result.outcome.ending,
        "reason": result.outcome.reason,
        "hint": result.outcome.hint,
        "notes": list(result.notes),
        "collect_error": result.collect_error,
    }
    if result.collected is not None:
        record |= collected_record(result.collected)
    return record
