"""What the trial scheduler did: who was stopped where, or who took over whose weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpc_tune.results.report.cells import numbers
from hpc_tune.results.report.theme import COLOURS, HIGHLIGHT, PALETTE, SYMBOLS, figure, log_axis
from hpc_tune.results.report.view import RunView

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["Rung", "ends", "lineage", "rungs", "rungs_figure", "schedules"]

REDUCTION = 4.0
"""Ray's ``reduction_factor`` where the experiment names none."""
MOST_MEMBERS = 64
"""Trials of a population that are told apart; of more, those that took part in the last exploits."""


@dataclass(frozen=True)
class Rung:
    """The trials that came to a rung of ASHA, by what came of them there; each with its metric's value."""

    milestone: float
    went_on: dict[str, float]
    stopped: dict[str, float]


def rungs(view: RunView) -> list[Rung]:
    """Return ASHA's rungs that a trial has reached, from the history alone; none for other trial schedulers."""
    history = view.tables.history
    time = str(view.option("time_attr", "training_iteration"))
    metric = view.metric_column
    if view.trial_scheduler != "asha" or time not in history or metric not in history or not len(history):
        return []
    stopped = {str(i) for i, word in zip(view.tables.trials["trial_id"], view.outcomes, strict=True) if "early" in word}
    rows = history.assign(at=numbers(history[time]), value=numbers(history[metric]))[["trial_id", "at", "value"]]
    last = rows.groupby("trial_id")["at"].max()
    found = []
    for milestone in _milestones(view):
        reached = rows[rows["at"] >= milestone].groupby("trial_id", sort=False).first()
        ended = {str(i) for i in reached.index if str(i) in stopped and last[i] == reached["at"][i]}
        values = {str(trial_id): float(value) for trial_id, value in reached["value"].items()}
        on = {trial_id: value for trial_id, value in values.items() if trial_id not in ended}
        if values:
            found.append(Rung(milestone, on, {trial_id: values[trial_id] for trial_id in values if trial_id in ended}))
    return found


def _milestones(view: RunView) -> Iterator[float]:
    milestone, end = float(view.option("grace_period", 1)), float(view.option("max_t", 100))
    factor = float(view.option("reduction_factor", REDUCTION))
    while milestone < end:
        yield milestone
        milestone *= factor


def rungs_figure(view: RunView) -> Figure | None:
    """Draw each rung: the trials that came to it, and which of them were stopped there."""
    found = rungs(view)
    if not found:
        return None
    drawn = figure("Rungs of ASHA", f"rung ({view.option('time_attr', 'training_iteration')})", view.info.metric)
    for word, label in (("finished", "went on"), ("stopped early", "stopped here")):
        members = [each.went_on if word == "finished" else each.stopped for each in found]
        drawn.add_scatter(
            x=[_spread(place, n, len(rung)) for place, rung in enumerate(members) for n in range(len(rung))],
            y=[value for rung in members for value in rung.values()],
            text=[trial_id for rung in members for trial_id in rung],
            mode="markers",
            name=label,
            marker={"color": COLOURS[word], "symbol": SYMBOLS.get(word, "circle"), "size": 7, "opacity": 0.75},
            hovertemplate="%{text}<br>%{y}<extra>" + label + "</extra>",
        )
    labels = [
        f"{each.milestone:g}<br>{len(each.stopped)} of {len(each.went_on) + len(each.stopped)} stopped"
        for each in found
    ]
    drawn.update_xaxes(tickvals=list(range(len(found))), ticktext=labels, range=[-0.5, len(found) - 0.5])
    return drawn


def _spread(place: int, number: int, count: int) -> float:
    """Return an abscissa near the rung's, so that trials with like values do not hide each other."""
    return place + (0.0 if count < 2 else (number / (count - 1) - 0.5) * 0.5)


def ends(view: RunView) -> Figure | None:
    """Draw after how many iterations trials ended, and how."""
    iterations = view.tables.trials["iterations"]
    if not len(iterations) or int(iterations.max()) < 2:
        return None
    drawn = figure("Where trials ended", "iterations", "trials", barmode="stack")
    counts: dict[str, dict[int, int]] = {}
    for word, count in zip(view.outcomes, iterations, strict=True):
        by_iteration = counts.setdefault(word, {})
        by_iteration[int(count)] = by_iteration.get(int(count), 0) + 1
    for word, found in counts.items():
        places = sorted(found)
        heights = [found[place] for place in places]
        drawn.add_bar(
            x=places,
            y=heights,
            name=word,
            marker={"color": COLOURS.get(word)},
            hovertemplate="%{y} after %{x} iterations<extra>" + word + "</extra>",
        )
    return drawn


def schedules(view: RunView) -> list[Figure]:
    """Draw, for each hyperparameter that a population changed, its value over each trial's iterations."""
    changed = {name for each in view.population.exploits for name in each.config}
    drawn = [_schedule(view, name) for name in sorted(changed & _mutated(view))]
    return [each for each in drawn if each.data]


def _mutated(view: RunView) -> set[str]:
    """Return the names of what differs between any two configs that the population held."""
    seen: dict[str, set[str]] = {}
    configs = [each.config for each in view.population.exploits] + list((view.population.sampled or {}).values())
    for config in configs:
        for name, value in config.items():
            seen.setdefault(name, set()).add(str(value))
    return {name for name, values in seen.items() if len(values) > 1}


def _members(view: RunView) -> list[str]:
    everybody = [str(trial_id) for trial_id in view.tables.trials["trial_id"]]
    if len(everybody) <= MOST_MEMBERS:
        return everybody
    busy = [each.trial_id for each in reversed(view.population.exploits)]
    return list(dict.fromkeys([*busy, *everybody]))[:MOST_MEMBERS]


def _schedule(view: RunView, name: str) -> Figure:
    drawn = figure(f"Schedule of {name}", "iteration", name, showlegend=False)
    last = dict(zip(view.tables.trials["trial_id"], view.tables.trials["iterations"], strict=True))
    best = view.best["trial_id"] if view.best else None
    values: list[Any] = []
    for number, trial_id in enumerate(sorted(_members(view), key=lambda each: each == best)):
        steps = view.population.schedule(trial_id, name)
        if not steps:
            continue
        end = max(int(last.get(trial_id, 0)), steps[-1][0])
        values += [value for _, value in steps]
        drawn.add_scatter(
            x=[*(iteration for iteration, _ in steps), end],
            y=[*(value for _, value in steps), steps[-1][1]],
            name=f"{trial_id} (best)" if trial_id == best else trial_id,
            mode="lines+markers",
            line=_line(number, best=trial_id == best),
            hovertemplate="%{fullData.name}<br>from iteration %{x}: %{y}<extra></extra>",
        )
    if view.is_log(name) and all(isinstance(value, int | float) and value > 0 for value in values):
        drawn.update_yaxes(log_axis(values))
    return drawn


def _line(number: int, *, best: bool) -> dict[str, Any]:
    colours = [colour for colour in PALETTE if colour != HIGHLIGHT]
    colour = HIGHLIGHT if best else colours[number % len(colours)]
    return {"shape": "hv", "color": colour, "width": 3 if best else 1.5}


def lineage(view: RunView) -> Figure | None:
    """Draw a line for each trial, and an arrow from the checkpoint that was taken over to who took it over."""
    exploits = view.population.exploits
    if not exploits:
        return None
    members = _members(view)
    height = max(260, 120 + 26 * len(members))
    drawn = figure("Lineage: who took over whose checkpoint", "iteration", "", height=height, showlegend=False)
    last = dict(zip(view.tables.trials["trial_id"], view.tables.trials["iterations"], strict=True))
    for trial_id in members:
        drawn.add_scatter(
            x=[0, int(last.get(trial_id, 0))],
            y=[trial_id, trial_id],
            mode="lines",
            line={"color": HIGHLIGHT if view.best and trial_id == view.best["trial_id"] else "#999999", "width": 2},
            hoverinfo="skip",
        )
    _arrows(drawn, [each for each in exploits if {each.trial_id, each.source_id} <= set(members)])
    drawn.update_yaxes(type="category", categoryorder="array", categoryarray=members[::-1])
    return drawn


def _arrows(drawn: Figure, exploits: Sequence[Any]) -> None:
    x = [place for each in exploits for place in (each.source_iteration, each.source_iteration, None)]
    y = [member for each in exploits for member in (each.source_id, each.trial_id, None)]
    said = [
        f"{each.trial_id} (after {each.iteration}) went on from {each.source_id} (after {each.source_iteration})"
        for each in exploits
    ]
    drawn.add_scatter(
        x=x,
        y=y,
        text=[text for text in said for _ in range(3)],
        mode="lines+markers",
        line={"color": PALETTE[0], "width": 1.2},
        marker={"size": 9, "symbol": "arrow", "angleref": "previous", "color": PALETTE[0]},
        hovertemplate="%{text}<extra></extra>",
    )
