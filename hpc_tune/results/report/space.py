"""The search space against the metric: parallel coordinates, one plot for each hyperparameter, importance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpc_tune.results.report.cells import MISSING, is_number, numbers, short, words
from hpc_tune.results.report.theme import COLOURS, HIGHLIGHT, PALETTE, SCALE, SYMBOLS, figure, log_axis
from hpc_tune.results.report.view import BEST, RunView

if TYPE_CHECKING:
    from pandas import DataFrame, Series
    from plotly.graph_objects import Figure

__all__ = ["hyperparameter", "importance", "parallel_coordinates"]

FEWEST_TRIALS = 10
"""Below this many trials with a value an importance would be noise."""
MOST_LABELS = 12


def _measured(view: RunView) -> DataFrame:
    """Return the rows of trials that have a value."""
    trials = view.tables.trials
    return trials[numbers(trials[BEST]).notna()]


def parallel_coordinates(view: RunView) -> Figure | None:
    """Draw each trial as a line through its hyperparameters to its best value; None without two of anything."""
    rows = _measured(view)
    if len(rows) < 2 or not view.hyperparameters:
        return None
    values = numbers(rows[BEST])
    drawn = figure("Parallel coordinates", "", "", height=440, margin={"l": 60, "r": 60, "t": 90, "b": 30})
    dimensions = [_dimension(view, rows, name) for name in view.hyperparameters]
    dimensions.append({"label": view.info.metric, "values": values.to_numpy()})
    drawn.add_parcoords(
        dimensions=dimensions,
        line={"color": values.to_numpy(), "colorscale": SCALE, "reversescale": view.info.mode == "min"},
        labelangle=-20 if len(dimensions) > 4 else 0,
    )
    drawn.update_layout(xaxis={"visible": False}, yaxis={"visible": False})
    return drawn


def _dimension(view: RunView, rows: DataFrame, name: str) -> dict[str, Any]:
    column = rows[f"config/{name}"]
    if not is_number(column):
        said = words(column)
        kinds = sorted(set(said))
        labels = kinds[:MOST_LABELS] + [""] * (len(kinds) - MOST_LABELS)
        places = [kinds.index(each) for each in said]
        return {"label": name, "values": places, "tickvals": list(range(len(kinds))), "ticktext": labels}
    values = numbers(column)
    if _is_log(view, name, column.dropna()):
        low, high = math.log10(values.min()), math.log10(values.max())
        ticks = [low + (high - low) * part / 4 for part in range(5)]
        labels = [f"{10**tick:.2g}" for tick in ticks]
        return {"label": name, "values": [math.log10(v) for v in values], "tickvals": ticks, "ticktext": labels}
    return {"label": name, "values": values.to_numpy()}


def hyperparameter(view: RunView, name: str) -> Figure:
    """Draw a hyperparameter's values against the best values of the trials that had them."""
    rows = _measured(view)
    column = rows[f"config/{name}"]
    outcomes = dict(zip(view.tables.trials["trial_id"], view.outcomes, strict=True))
    drawn = figure(name, "", view.info.metric, height=300, showlegend=False)
    numeric = is_number(column)
    ends = rows["trial_id"].map(outcomes)
    for word in dict.fromkeys(ends):
        chosen = ends == word
        picked = column[chosen]
        drawn.add_scatter(
            x=numbers(picked).to_numpy() if numeric else words(picked),
            y=numbers(rows[BEST][chosen]).to_numpy(),
            text=rows["trial_id"][chosen].tolist(),
            mode="markers",
            name=word,
            marker={"color": COLOURS.get(word), "symbol": SYMBOLS.get(word, "circle"), "size": 7, "opacity": 0.7},
            hovertemplate="%{text}<br>" + "%{x}: %{y}<extra>" + word + "</extra>",
        )
    _ring(drawn, view, name, numeric=numeric)
    drawn.update_xaxes(_axis(view, name, column) if numeric else {"type": "category"})
    return drawn


def _axis(view: RunView, name: str, column: Series[Any]) -> dict[str, Any]:
    return log_axis(numbers(column)) if _is_log(view, name, column) else {"type": "linear"}


def _is_log(view: RunView, name: str, column: Series[Any]) -> bool:
    return view.is_log(name) and bool((numbers(column) > 0).all())


def _ring(drawn: Figure, view: RunView, name: str, *, numeric: bool) -> None:
    """Mark the best trial."""
    if view.best is None:
        return
    setting = view.best[f"config/{name}"]
    drawn.add_scatter(
        x=[setting if numeric else MISSING if setting is None else short(setting)],
        y=[view.best[BEST]],
        mode="markers",
        name="best",
        marker={"symbol": "circle-open", "size": 14, "color": HIGHLIGHT, "line": {"width": 3}},
        hovertemplate=f"best: {view.best['trial_id']}<extra></extra>",
    )


def importance(view: RunView) -> tuple[Figure | None, str]:
    """Draw how much each hyperparameter matters by PED-ANOVA; return the figure, or None and why there is none."""
    rows = _measured(view)
    names = [name for name in view.hyperparameters if len(set(words(rows[f"config/{name}"]))) > 1]
    if len(rows) < FEWEST_TRIALS:
        trials = f"{len(rows)} trial{'s' * (len(rows) != 1)} with a value"
        return None, f"Importances need at least {FEWEST_TRIALS} trials with a value; there are {trials}."
    if len(names) < 2:
        return None, "With fewer than two hyperparameters that differ there is nothing to weigh."
    shares = _shares(view, rows, names)
    if not shares:
        return None, "All trials did equally well: no hyperparameter is more important than another."
    drawn = figure("Importance", "share", "", height=120 + 30 * len(shares), showlegend=False)
    names = sorted(shares, key=lambda name: shares[name])
    drawn.add_bar(
        x=[shares[name] for name in names],
        y=names,
        orientation="h",
        marker={"color": PALETTE[0]},
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    return drawn, _method(view)


def _method(view: RunView) -> str:
    early = "; trials that were stopped early count with the best they had reached" * ("stopped early" in view.outcomes)
    return (
        "What sets the best tenth of the trials apart from all of them, by Optuna's PED-ANOVA evaluator"
        f" (Watanabe et al. 2023){early}. Few trials or a searcher that avoids bad regions make it uncertain."
    )


def _shares(view: RunView, rows: DataFrame, names: Sequence[str]) -> dict[str, float]:
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="minimize" if view.info.mode == "min" else "maximize")
        study.add_trials(_study_trials(view, rows, names))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(before)
    return {name: float(share) for name, share in shares.items() if not math.isnan(share)}


def _study_trials(view: RunView, rows: DataFrame, names: Sequence[str]) -> list[Any]:
    import optuna

    columns = {name: _column(view, rows[f"config/{name}"], name) for name in names}
    distributions = {name: distribution for name, (_, distribution) in columns.items()}
    values = numbers(rows[BEST]).tolist()
    return [
        optuna.trial.create_trial(
            params={name: column[place] for name, (column, _) in columns.items()},
            distributions=distributions,
            value=value,
        )
        for place, value in enumerate(values)
    ]


def _column(view: RunView, column: Series[Any], name: str) -> tuple[list[Any], Any]:
    """Return a hyperparameter's values, and the distribution that they span."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if not is_number(column) or column.isna().any():
        said = words(column)
        return said, CategoricalDistribution(sorted(set(said)))
    values = numbers(column)
    return values.tolist(), FloatDistribution(float(values.min()), float(values.max()), log=_is_log(view, name, column))
