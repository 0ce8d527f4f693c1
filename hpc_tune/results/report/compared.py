"""Several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpc_tune.results.report.cells import numbers
from hpc_tune.results.report.curves import best_over_time, best_over_trials
from hpc_tune.results.report.theme import PALETTE, figure
from hpc_tune.results.report.view import BEST, RunView

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["comparison", "comparison_rows"]

COLUMNS = (
    "best_value", "best_trial", "trials", "terminated", "error", "wall_seconds", "cpu_hours", "gpu_hours", "attempts",
)  # fmt: skip
"""Columns of ``summary.csv`` that are put side by side."""


def comparison(views: Sequence[RunView]) -> dict[str, Figure]:
    """Draw several runs of one metric into the same figures."""
    drawn = {"best-over-trials": best_over_trials(views)}
    if (over_time := best_over_time(views)) is not None:
        drawn["best-over-time"] = over_time
    drawn["values"] = _values(views)
    return drawn


def _values(views: Sequence[RunView]) -> Figure:
    """Draw the distribution of the trials' best values."""
    drawn = figure("Best values of all trials", "", views[0].info.metric, showlegend=False)
    for number, view in enumerate(views):
        drawn.add_box(
            y=numbers(view.tables.trials[BEST]).to_numpy(),
            text=view.tables.trials["trial_id"].tolist(),
            name=view.name,
            boxpoints="all" if len(view.tables.trials) <= 200 else "outliers",
            jitter=0.5,
            pointpos=0,
            marker={"color": PALETTE[number % len(PALETTE)], "size": 4},
            hovertemplate="%{text}<br>%{y}<extra></extra>",
        )
    return drawn


def comparison_rows(views: Sequence[RunView]) -> list[Mapping[str, Any]]:
    """Return a row of the summary for each run, the best first."""
    rows = [
        {"run": view.name, "searcher": view.searcher, "trial scheduler": view.trial_scheduler}
        | {name: view.summary.get(name) for name in COLUMNS}
        for view in views
    ]
    return sorted(rows, key=lambda row: _rank(row["best_value"], views[0].info.mode))


def _rank(value: Any, mode: str) -> tuple[bool, float]:
    missing = value is None or value != value  # noqa: PLR0124 - NaN
    return missing, 0.0 if missing else (float(value) if mode == "min" else -float(value))
