"""Colours and layout of the figures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["COLOURS", "DASHES", "HIGHLIGHT", "PALETTE", "SCALE", "SYMBOLS", "figure", "log_axis"]

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#777777")
"""Okabe and Ito's colours, which people with any kind of colour blindness tell apart; black is for text."""
HIGHLIGHT = "#D55E00"
SCALE = ((0.0, "#7f9db9"), (0.6, "#CC79A7"), (1.0, "#D55E00"))
"""From the worst to the best value; both ends can be seen on white and on black."""
COLOURS = {
    "finished": PALETTE[0],
    "stopped early": PALETTE[1],
    "failed": PALETTE[3],
    "interrupted": PALETTE[4],
    "running": PALETTE[2],
    "waiting": PALETTE[7],
}
DASHES = {"stopped early": "dot", "failed": "dash", "interrupted": "dashdot"}
SYMBOLS = {"stopped early": "triangle-down", "failed": "x", "interrupted": "diamond", "running": "circle-open"}
_TITLE = {
    "x": 0,
    "xref": "paper",
    "y": 1,
    "yref": "container",
    "yanchor": "top",
    "pad": {"t": 8, "b": 4},
    "automargin": True,
    "font": {"size": 15},
}
_AXIS = {"gridcolor": "rgba(128,128,128,0.25)", "zerolinecolor": "rgba(128,128,128,0.4)", "automargin": True}


def figure(title: str, x: str, y: str, **layout: Any) -> Figure:
    """Return an empty figure; its background is the page's, light or dark."""
    from plotly.graph_objects import Figure

    drawn = Figure()
    top = 40 if layout.get("showlegend") is False else 66  # room for the title, and the legend below it
    drawn.update_layout(
        template="none",
        title={"text": title, **_TITLE},
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#444444"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 10, "r": 10, "t": top, "b": 10},
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        xaxis={"title": {"text": x}, **_AXIS},
        yaxis={"title": {"text": y}, **_AXIS},
        hovermode="closest",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#999999", "activecolor": "#555555"},
        height=380,
    )
    drawn.update_layout(**layout)
    return drawn


def log_axis(values: Iterable[float]) -> dict[str, Any]:
    """Return a logarithmic axis for positive values; a linear one where they span less than a power of ten."""
    present = [value for value in values if value > 0]
    decades = math.log10(max(present) / min(present)) if present else 0.0
    if decades < 1:
        return {"type": "linear"}
    return {"type": "log", "exponentformat": "power", "dtick": 1 if decades >= 2 else "D2"}
