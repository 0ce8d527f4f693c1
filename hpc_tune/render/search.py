"""How a live search on this machine looks, on a terminal and in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from hpc_tune.experiment.duration import format_seconds
from hpc_tune.operations.watching import Watcher
from hpc_tune.progress import Best, Progress
from hpc_tune.render.text import number, states
from hpc_tune.run import RunDir

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from hpc_tune.experiment.spec import Experiment

__all__ = ["LineWatcher", "TableWatcher", "watcher"]

LINE_INTERVAL = 10.0
"""Seconds between two progress lines when nothing else calls for one."""
LEAST_INTERVAL = 2.0
"""Seconds between two progress lines when trials end faster than anybody reads."""


def _best(best: Best, metric: str) -> str:
    return f"best {metric} {number(best.value)} (trial {best.trial_id}, iteration {best.iteration})"


def _settings(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={number(value)}" for key, value in config.items())


class LineWatcher(Watcher):
    """Plain lines, for a log file or a pipe: one when something happened, and one now and then."""

    def __init__(self) -> None:
        self._metric = ""
        self._last: tuple[Any, ...] = ()
        self._printed = 0.0

    def started(self, run: RunDir, experiment: Experiment, notes: Sequence[str]) -> None:
        """Name the run, its size and what to know."""
        self._metric = experiment.metric
        click.echo(f"run {run.name}: {experiment.total_trials} trials of {experiment.as_json()['trainable']}")
        click.echo(f"in {run.path}")
        for note in notes:
            click.echo(f"note: {note}")

    def progress(self, progress: Progress) -> None:
        """Print a line when a trial has ended or the best has changed, in time, and every ten seconds."""
        over = (progress.states.get("TERMINATED", 0), progress.states.get("ERROR", 0))
        state = (progress.phase, over, progress.best.trial_id if progress.best else None)
        now = time.monotonic()
        if self._last[:1] == state[:1]:
            interval = LINE_INTERVAL if state == self._last else LEAST_INTERVAL
            if now - self._printed < interval:
                return
        self._last, self._printed = state, now
        click.echo(_line(progress, self._metric))

    def stopping(self) -> None:
        """Say that the first interrupt was heard."""
        click.echo("stopping: saving the state of the search (interrupt again to end at once)")


def _line(progress: Progress, metric: str) -> str:
    if progress.phase == "starting":
        return "starting Ray"
    parts = [f"{format_seconds(progress.elapsed)}: {states(progress.states) or 0} of {progress.total}"]
    if progress.best:
        parts.append(_best(progress.best, metric))
    if progress.eta_seconds:
        parts.append(f"about {format_seconds(progress.eta_seconds)} left")
    return " · ".join(parts)


class TableWatcher(LineWatcher):
    """A live table on a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._live: Live | None = None

    def started(self, run: RunDir, experiment: Experiment, notes: Sequence[str]) -> None:
        """Print the head and open the table below it."""
        from rich.live import Live

        super().started(run, experiment, notes)
        self._live = Live(transient=True, auto_refresh=False)
        self._live.start()

    def progress(self, progress: Progress) -> None:
        """Draw the table anew."""
        if self._live is not None:
            self._live.update(_table(progress, self._metric), refresh=True)

    def stopping(self) -> None:
        """Close the table and say that the first interrupt was heard."""
        self.closed()
        super().stopping()

    def closed(self) -> None:
        """Wipe the table; what comes next takes its place."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _table(progress: Progress, metric: str) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    if progress.phase == "starting":
        return Text("starting Ray …")
    grid = Table.grid(padding=(0, 2))
    grid.add_row("trials", f"{states(progress.states) or 0} of {progress.total}; {progress.slots} at a time")
    if progress.best:
        # Text: rich takes square brackets in a plain string for markup
        grid.add_row("best", Text(_best(progress.best, metric).removeprefix("best ")))
        grid.add_row("", Text(_settings(progress.best.config)))
    left = f", about {format_seconds(progress.eta_seconds)} left" if progress.eta_seconds else ""
    grid.add_row("time", format_seconds(progress.elapsed) + left)
    return grid


def watcher(*, as_json: bool) -> Watcher:
    """Return who follows a live search: nobody, a table, or lines."""
    if as_json:
        return Watcher()
    return TableWatcher() if sys.stdout.isatty() else LineWatcher()
