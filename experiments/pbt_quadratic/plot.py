"""Draw the paths of both trials and how Q went, with the steps at which one took over the other's checkpoint.

``python plot.py RUN OUT.html``, where RUN is a run's directory or name.
"""

from __future__ import annotations

import sys

import numpy as np
from plotly.graph_objects import Figure
from plotly.subplots import make_subplots

from hpc_tune import load_run

COLOURS = ("#0072B2", "#E69F00")


def draw(name: str) -> Figure:
    """Return both plots of a run, finished or live."""
    run = load_run(name)
    figure = make_subplots(cols=2, subplot_titles=("path of theta, over Q", "Q over iterations"))
    side = np.linspace(-0.1, 1, 60)
    levels = 1.2 - (3 / 4 * side[None, :] ** 2 + side[:, None] ** 2)
    figure.add_contour(x=side, y=side, z=levels, colorscale="Greys", opacity=0.4, showscale=False, row=1, col=1)
    for colour, (trial, rows) in zip(COLOURS, run.history.groupby("trial_id"), strict=True):
        line = {"mode": "lines+markers", "line": {"color": colour}, "marker": {"size": 3}, "name": str(trial)}
        left = rows[rows["training_iteration"].isin(run.exploits.query("trial_id == @trial")["iteration"])]
        star = {"mode": "markers", "marker": {"color": colour, "symbol": "star", "size": 11}, "name": f"{trial} leaves"}
        for part, style in ((rows, line), (left, star)):
            figure.add_scatter(x=part["theta0"], y=part["theta1"], row=1, col=1, **style)
            figure.add_scatter(x=part["training_iteration"], y=part["Q"], row=1, col=2, showlegend=False, **style)
    figure.add_hline(y=1.2, line_dash="dot", row=1, col=2)
    return figure.update_layout(template="plotly_white", title=run.name)


if __name__ == "__main__":
    _, run, out = sys.argv
    draw(run).write_html(out)
