"""How the metric went: the best so far, and each trial's learning curves."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpc_tune.results.report.cells import is_number, numbers
from hpc_tune.results.report.theme import COLOURS, DASHES, HIGHLIGHT, PALETTE, SYMBOLS, figure
from hpc_tune.results.report.view import BEST, AttemptSpan, RunView
from hpc_tune.results.resultlog import TIMES

if TYPE_CHECKING:
    from pandas import DataFrame, Series
    from plotly.graph_objects import Figure

__all__ = ["best_over_time", "best_over_trials", "hours_at_work", "learning_curves", "other_metrics"]

MOST_POINTS = 20_000
"""Points of all learning curves together: more make a browser slow, and nobody sees them."""
FEWEST = 6
"""Points that every curve keeps."""
MOST_METRICS = 12
_NO_METRICS = ("trial_id", "training_iteration", *TIMES)
_UNITS = (("days", 1 / 24, 3.0), ("hours", 1.0, 2.0), ("minutes", 60.0, 3.0), ("seconds", 3600.0, 0.0))
"""Units of time, how many make an hour, and from how many on an axis is marked in them."""


def best_over_trials(views: Sequence[RunView]) -> Figure:
    """Draw the best value after each trial, for one run with the trials' own values behind it."""
    drawn = figure("Best so far, trial by trial", "trial", views[0].info.metric)
    for number, view in enumerate(views):
        values = numbers(view.tables.trials[BEST])
        trials = list(range(1, len(values) + 1))
        colour = HIGHLIGHT if len(views) == 1 else PALETTE[number % len(PALETTE)]
        if len(views) == 1:
            _trial_dots(drawn, view, trials)
        drawn.add_scatter(
            x=trials,
            y=_running_best(values, view.info.mode).to_numpy(),
            name="best so far" if len(views) == 1 else view.name,
            mode="lines",
            line={"shape": "hv", "color": colour, "width": 2.5},
        )
    return drawn


def _trial_dots(drawn: Figure, view: RunView, trials: list[int]) -> None:
    table = view.tables.trials
    values = numbers(table[BEST])
    for word in dict.fromkeys(view.outcomes):
        places = [place for place, outcome in enumerate(view.outcomes) if outcome == word]
        drawn.add_scatter(
            x=[trials[place] for place in places],
            y=values.iloc[places].to_numpy(),
            text=table["trial_id"].iloc[places].tolist(),
            name=word,
            mode="markers",
            marker={"color": COLOURS.get(word), "symbol": SYMBOLS.get(word, "circle"), "size": 6, "opacity": 0.7},
            hovertemplate="%{text}<br>%{y}<extra>" + word + "</extra>",
        )


def best_over_time(views: Sequence[RunView]) -> Figure | None:
    """Draw the best value over the hours in which an attempt was at work; None without any time."""
    longest = max((sum(each.hours for each in view.attempts) for view in views), default=0.0)
    unit, per_hour = next((each for each in _UNITS if longest * each[1] >= each[2]), _UNITS[-1])[:2]
    drawn = figure("Best so far over wall time", f"{unit} at work", views[0].info.metric)
    for number, view in enumerate(views):
        history = view.tables.history
        if view.metric_column not in history or not len(history):
            continue
        rows = history[[view.metric_column, "timestamp", "trial_id"]].sort_values("timestamp", kind="stable")
        values = numbers(rows[view.metric_column])
        best = _running_best(values, view.info.mode)
        kept = (best != best.shift()) & best.notna()
        kept.iloc[-1] = True
        hours = hours_at_work(rows["timestamp"][kept].tolist(), view.attempts)
        drawn.add_scatter(
            x=[each * per_hour for each in hours],
            y=best[kept].to_numpy(),
            text=rows["trial_id"][kept].tolist(),
            name=view.name,
            mode="lines",
            line={"shape": "hv", "color": PALETTE[number % len(PALETTE)], "width": 2.5},
            hovertemplate=f"%{{y}} after %{{x:.4g}} {unit}<br>%{{text}}<extra></extra>",
        )
        if len(views) == 1 and len(view.attempts) > 1:
            _interruptions(drawn, view, per_hour)
            drawn.update_xaxes(title=f"{unit} at work; numbers: attempts")
    drawn.update_layout(showlegend=len(views) > 1, xaxis_rangemode="tozero")
    return drawn if drawn.data else None


def _interruptions(drawn: Figure, view: RunView, per_hour: float) -> None:
    """Mark where one attempt ended and the next began."""
    passed = 0.0
    for before, after in zip(view.attempts, view.attempts[1:], strict=False):
        passed += before.hours * per_hour
        line = {"dash": "dot", "width": 1, "color": "#888888"}
        drawn.add_vline(x=passed, line=line, annotation_text=str(after.number))


def hours_at_work(times: Sequence[float], attempts: Sequence[AttemptSpan]) -> list[float]:
    """Return for each time how long attempts had been at work; times outside of all count as the nearest end."""
    if not attempts:
        first = min(times, default=0.0)
        return [(time - first) / 3600 for time in times]
    starts = [each.started for each in attempts]
    before = [sum(each.hours for each in attempts[:place]) for place in range(len(attempts))]
    hours = []
    for time in times:
        place = max(0, bisect_right(starts, time) - 1)
        within = (time - starts[place]) / 3600
        hours.append(before[place] + min(max(within, 0.0), attempts[place].hours))
    return hours


def _running_best(values: Series[float], mode: str) -> Series[float]:
    best = values.cummin() if mode == "min" else values.cummax()
    return best.ffill()


def learning_curves(view: RunView) -> tuple[Figure | None, str]:
    """Draw each trial's metric over its iterations; return the figure and what to know of it."""
    history, metric = view.tables.history, view.metric_column
    if metric not in history or not len(history):
        return None, f"No trial has reported {view.info.metric} yet."
    drawn = figure("Learning curves", "iteration", view.info.metric, height=460)
    most = _most(view, MOST_POINTS)
    _draw_curves(drawn, view, metric, most)
    longest = int(history.groupby("trial_id").size().max())
    note = f"Of each trial at most {most} of its iterations are drawn, always the first, the last and its best."
    return drawn, note if longest > most else ""


def other_metrics(view: RunView) -> dict[str, Figure]:
    """Draw the other numbers that trials reported in the same way, smaller, by their columns' names."""
    history = view.tables.history
    names = [name for name in history.columns if name not in (*_NO_METRICS, view.metric_column)]
    numeric = [name for name in names if is_number(history[name])][:MOST_METRICS]
    found = {name: figure(name, "iteration", "", height=300, showlegend=False) for name in numeric}
    for name, drawn in found.items():
        _draw_curves(drawn, view, name, _most(view, MOST_POINTS // len(found)))
    return found


def _most(view: RunView, points: int) -> int:
    """Return how many iterations of each trial are drawn."""
    return max(FEWEST, points // max(1, view.tables.history["trial_id"].nunique()))


def _draw_curves(drawn: Figure, view: RunView, name: str, most: int) -> None:
    """Draw a column of the history; one trace per outcome: a thousand would take a browser seconds to draw."""
    outcomes = dict(zip(view.tables.trials["trial_id"], view.outcomes, strict=True))
    best_id = view.best["trial_id"] if view.best else None
    groups: dict[str, list[DataFrame]] = {}
    columns = view.tables.history[["trial_id", "training_iteration", name]]
    for trial_id, curve in columns.groupby("trial_id", sort=False):
        word = "best" if trial_id == best_id else outcomes[str(trial_id)]
        groups.setdefault(word, []).append(_thinned(curve.assign(value=numbers(curve[name])), most, view.info.mode))
    for word in sorted(groups, key=lambda word: (word == "best", word)):
        _curve_trace(drawn, word, groups[word], crowd=len(outcomes))


def _thinned(curve: DataFrame, most: int, mode: str) -> DataFrame:
    """Return at most ``most`` rows: the first, the last, the best, the others evenly spaced."""
    if len(curve) <= most:
        return curve
    import numpy

    places = set(numpy.linspace(0, len(curve) - 1, most - 1).round().astype(int).tolist())
    values = curve["value"].to_numpy()
    if not numpy.isnan(values).all():
        places.add(int((numpy.nanargmin if mode == "min" else numpy.nanargmax)(values)))
    return curve.iloc[sorted(places)]


def _curve_trace(drawn: Figure, word: str, curves: list[DataFrame], *, crowd: int) -> None:
    x: list[Any] = []
    y: list[Any] = []
    text: list[str] = []
    for curve in curves:
        x += [*curve["training_iteration"].tolist(), None]
        y += [*curve["value"].tolist(), None]
        text += [str(curve["trial_id"].iloc[0])] * (len(curve) + 1)
    best, crowded = word == "best", crowd > 40
    width = 3 if best else (0.8 if crowd > 300 else 1.2)
    single = all(len(curve) == 1 for curve in curves)
    drawn.add_scatter(
        x=x,
        y=y,
        text=text,
        name=word if best else f"{word} ({len(curves)})",
        mode="markers" if single else ("lines" if crowded and not best else "lines+markers"),
        line={"color": HIGHLIGHT if best else COLOURS.get(word), "width": width, "dash": DASHES.get(word)},
        marker={"size": 5, "symbol": SYMBOLS.get(word, "circle")},
        opacity=1.0 if best else (0.45 if crowded else 0.8),
        hovertemplate="%{text}<br>iteration %{x}: %{y}<extra>" + word + "</extra>",
    )
