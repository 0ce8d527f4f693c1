"""All figures of a run, by name, with the sentences that belong to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_tune.results.report.allocation import timeline
from hpc_tune.results.report.curves import best_over_time, best_over_trials, learning_curves, other_metrics
from hpc_tune.results.report.schedulers import ends, lineage, rungs_figure, schedules
from hpc_tune.results.report.space import hyperparameter, importance, parallel_coordinates
from hpc_tune.results.report.view import RunView

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["Part", "parts", "run_figures"]

MOST_HYPERPARAMETERS = 16


@dataclass(frozen=True)
class Part:
    """A section of a report: its figures by name, and a sentence to go with them or in their place."""

    title: str
    figures: dict[str, Figure]
    note: str = ""
    small: bool = False
    """Whether the figures stand side by side."""


def parts(view: RunView) -> list[Part]:
    """Return the sections of a run's report that have something to show or to say."""
    found = [_progress(view), _metrics(view), *_space(view), _scheduler(view), _allocation(view)]
    return [part for part in found if part.figures or part.note]


def run_figures(view: RunView) -> dict[str, Figure]:
    """Return all figures of a run by name."""
    return {name: drawn for part in parts(view) for name, drawn in part.figures.items()}


def _there(**figures: Figure | None) -> dict[str, Figure]:
    return {name.replace("_", "-"): drawn for name, drawn in figures.items() if drawn is not None}


def _progress(view: RunView) -> Part:
    curves, note = learning_curves(view)
    if view.best is None:
        return Part("Progress", {}, f"No trial has reported {view.info.metric} yet.")
    over_trials, over_time = best_over_trials([view]), best_over_time([view])
    drawn = _there(best_over_trials=over_trials, best_over_time=over_time, learning_curves=curves)
    return Part("Progress", drawn, note)


def _metrics(view: RunView) -> Part:
    drawn = {f"metric-{name}": each for name, each in other_metrics(view).items()}
    return Part("What else the trials reported", drawn, small=True)


def _space(view: RunView) -> Iterator[Part]:
    if view.best is None or not view.hyperparameters:
        return
    drawn, note = importance(view)
    yield Part("Hyperparameters", _there(parallel_coordinates=parallel_coordinates(view), importance=drawn), note)
    names = view.hyperparameters
    if drawn is not None:  # the most important first
        order = list(reversed(drawn.data[0].y))
        names = [*order, *(name for name in names if name not in order)]
    left = len(names) - MOST_HYPERPARAMETERS
    note = f"{left} less important hyperparameters are not drawn." if left > 0 else ""
    each = {f"hyperparameter-{name}": hyperparameter(view, name) for name in names[:MOST_HYPERPARAMETERS]}
    yield Part(f"Each hyperparameter against {view.info.metric}", each, note, small=True)


def _scheduler(view: RunView) -> Part:
    title = f"What the trial scheduler did ({view.trial_scheduler})"
    population = {f"schedule-{each.layout.yaxis.title.text}": each for each in schedules(view)}
    drawn = _there(rungs=rungs_figure(view), lineage=lineage(view))
    if not drawn:
        drawn = _there(ends=ends(view)) if view.tables.trials["iterations"].nunique() > 1 else {}
    note = "" if "pbt" not in view.trial_scheduler or population else "No trial has taken over another's checkpoint."
    return Part(title, drawn | population, note)


def _allocation(view: RunView) -> Part:
    return Part("The allocation", _there(timeline=timeline(view)))
