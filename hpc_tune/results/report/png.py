"""The plots as PNG files, drawn by kaleido in a browser of this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hpc_tune.errors import RunError, UsageError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["check_png", "write_pngs"]

WIDTH = 900
SCALE = 2
"""Pixels of a file to one of the layout."""


def check_png() -> None:
    """Make sure that PNG files can be drawn here.

    Raises:
        UsageError: naming what is missing.
    """
    if find_spec("kaleido") is None:
        raise UsageError("--png needs the package kaleido", hint="pip install 'hpc-tune[png]'")
    from choreographer.browsers.chromium import Chromium

    if not Chromium.find_browser(skip_local=False):
        raise UsageError(
            "--png needs a Chrome or Chromium, and there is none on this machine",
            hint="install one, or name it in $BROWSER_PATH; without one use the camera above each plot of report.html",
        )


def write_pngs(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write each figure to a file of its name, on white.

    Raises:
        RunError: if the browser does not draw them, or the files cannot be written.
    """
    import plotly.io

    paths = [folder / f"{name}.png" for name in _file_names(figures)]
    drawn = [_on_white(each) for each in figures.values()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        plotly.io.write_images(drawn, paths, width=WIDTH, scale=SCALE)
    except (OSError, RuntimeError, ValueError) as error:
        raise RunError(
            f"cannot draw the plots to {folder}: {error}", hint="the camera above each plot does it, too"
        ) from error
    return paths


def _file_names(figures: Mapping[str, Figure]) -> list[str]:
    """Return the figures' names without what a file name should not have; a second of one name gets a number."""
    names: list[str] = []
    for name in figures:
        plain = re.sub(r"[^\w.-]+", "-", name)
        names.append(f"{plain}-{len(names)}" if plain in names else plain)
    return names


def _on_white(drawn: Figure) -> Figure:
    from plotly.graph_objects import Figure

    return Figure(drawn).update_layout(paper_bgcolor="white", plot_bgcolor="white")
