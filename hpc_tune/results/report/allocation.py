"""What became of the allocation: a timeline of the trials on nodes and slots, and the share that trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hpc_tune.results.report.theme import COLOURS, HIGHLIGHT, PALETTE, figure
from hpc_tune.results.report.view import RunView
from hpc_tune.results.spans import Span

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["Share", "share", "timeline"]

MOST_SLOTS = 160
"""Lines of a timeline that can be told apart."""


@dataclass(frozen=True)
class Share:
    """What was allocated and what of it trained, in hours of ``unit``."""

    unit: str
    """``GPU`` or ``CPU``."""
    allocated: float
    trained: float
    """What the results in the tables took: ``gpu_hours`` or ``cpu_hours`` of ``summary.csv``."""
    repeated: float
    """Work that was done again after an interruption."""

    @property
    def percent(self) -> float | None:
        """The share that trained; None where nothing was allocated."""
        return 100 * self.trained / self.allocated if self.allocated > 0 else None


def share(view: RunView) -> Share:
    """Weigh what trained against what the attempts had, in GPU-hours, or in CPU-hours where trials use no GPU."""
    uses_gpus = view.info.trial_gpus > 0
    trained = float(view.summary["gpu_hours" if uses_gpus else "cpu_hours"])
    each_trial = view.info.trial_gpus if uses_gpus else view.info.trial_cpus
    spent = sum(span.end - span.start for span in view.spans) * each_trial / 3600
    again = spent - trained if view.summary.get("repeated_rows") else 0.0
    allocated = sum((one.gpus if uses_gpus else one.cpus) * one.nodes * one.hours for one in view.attempts)
    return Share("GPU" if uses_gpus else "CPU", allocated, trained, max(0.0, again))


def timeline(view: RunView) -> Figure | None:
    """Draw each piece of work on its node and slot, and where attempts began and ended; None without any."""
    lines = _lines(view.spans)
    if not lines:
        return None
    height = 150 + (22 if len(lines) <= 40 else 9) * len(lines)
    drawn = figure(
        "Trials on nodes and slots",
        "time (UTC); numbers: attempts",
        "",
        height=height,
        barmode="overlay",
    )
    outcomes = dict(zip(view.tables.trials["trial_id"], view.outcomes, strict=True))
    shown = [span for span in view.spans if (span.node, span.slot) in lines]
    for word in dict.fromkeys(outcomes[span.trial_id] for span in shown):
        _bars(drawn, word, [span for span in shown if outcomes[span.trial_id] == word], lines)
    _attempts(drawn, view)
    ticks = list(lines.items())[:: max(1, len(lines) // 40)]
    drawn.update_xaxes(type="date")
    drawn.update_yaxes(
        tickvals=[place for _, place in ticks],
        ticktext=[f"{node} · {slot}" for (node, slot), _ in ticks],
        range=[len(lines) - 0.4, -1.6],  # above the bars there is a line for the attempts
    )
    return drawn


def _lines(spans: Sequence[Span]) -> dict[tuple[str, int], int]:
    """Return the line of each node's slot, from the top."""
    slots = sorted({(span.node, span.slot) for span in spans})[:MOST_SLOTS]
    return {slot: place for place, slot in enumerate(slots)}


def _bars(drawn: Figure, word: str, spans: Sequence[Span], lines: dict[tuple[str, int], int]) -> None:
    drawn.add_bar(
        base=[_moment(span.start) for span in spans],
        x=[1000 * max(span.end - span.start, 0.001) for span in spans],
        y=[lines[span.node, span.slot] for span in spans],
        text=[span.trial_id for span in spans],
        customdata=[span.results for span in spans],
        orientation="h",
        width=0.8,
        name=word,
        textposition="none",
        marker={"color": COLOURS.get(word), "line": {"width": 0.5, "color": "rgba(255,255,255,0.6)"}},
        hovertemplate="%{text}<br>%{customdata} iterations from %{base}<extra>" + word + "</extra>",
    )


def _attempts(drawn: Figure, view: RunView) -> None:
    colour = {"completed": PALETTE[2], "interrupted": HIGHLIGHT, "failed": HIGHLIGHT}
    for each in view.attempts:
        line = {"width": 1, "dash": "dot", "color": "#888888"}
        drawn.add_vline(x=_moment(each.started), line=line)
        drawn.add_vline(x=_moment(each.ended), line=line | {"color": colour.get(each.ending, "#888888"), "width": 2})
        drawn.add_annotation(
            x=_moment(each.started), y=1, yref="paper", yanchor="top", xanchor="left", showarrow=False,
            text=str(each.number), hovertext=f"attempt {each.number}: {each.ending}", font={"size": 11},
        )  # fmt: skip


def _moment(seconds: float) -> str:
    """Return a time as plotly takes it: UTC without saying so."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
