"""The page: one HTML file with everything in it, plotly.js too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from hpc_tune.results.report import answer
from hpc_tune.results.report.allocation import share
from hpc_tune.results.report.cells import short
from hpc_tune.results.report.compared import comparison, comparison_rows
from hpc_tune.results.report.figures import Part, parts
from hpc_tune.results.report.view import RunView

if TYPE_CHECKING:
    from jinja2 import Template
    from plotly.graph_objects import Figure

__all__ = ["Page", "comparison_page", "run_page"]


@dataclass(frozen=True)
class Page:
    """A report: its HTML, and the plots in it by name."""

    html: str
    figures: Mapping[str, Figure]


def run_page(view: RunView) -> Page:
    """Return the report of one run."""
    sections = parts(view)
    return _page(
        title=view.name,
        figures={name: drawn for part in sections for name, drawn in part.figures.items()},
        view=view,
        answer=answer,
        share=share(view),
        sections=sections,
        rows=None,
        views=[view],
    )


def comparison_page(views: Sequence[RunView]) -> Page:
    """Return a report that compares several runs of one metric, the best first."""
    rows = comparison_rows(views)
    by_name = {view.name: view for view in views}
    drawn = comparison(views)
    return _page(
        title=f"{len(views)} runs compared",
        figures=drawn,
        view=by_name[rows[0]["run"]],
        answer=answer,
        share=None,
        sections=[Part("Side by side", drawn)],
        rows=rows,
        views=[by_name[row["run"]] for row in rows],
    )


def _page(*, figures: Mapping[str, Figure], **context: Any) -> Page:
    from plotly.offline import get_plotlyjs

    data = {name: _embedded(drawn) for name, drawn in figures.items()}
    return Page(_template().render(plotly=get_plotlyjs(), data=data, **context), figures)


def _embedded(drawn: Figure) -> str:
    """Return a figure as JSON that may stand in a script element, whatever a trial or a config is called."""
    content = json.loads(str(drawn.to_json()))
    content["layout"].pop("template", None)
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").encode("utf-8", "backslashreplace").decode()


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hpc_tune.results.report", "."),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = short
    environment.filters["exact"] = _exact
    return environment.get_template("report.html.j2")


def _exact(value: Any) -> str:
    """Return a number with all its digits, as the tables have it; empty for what is missing."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return ""
    return repr(value.item() if hasattr(value, "item") else value)
