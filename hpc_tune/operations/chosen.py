"""Which experiments a command means when none is named."""

from __future__ import annotations

import tomllib
from pathlib import Path

from hpc_tune.errors import UsageError

__all__ = ["default_experiments"]


def default_experiments(start: Path) -> list[Path]:
    """Return what ``[tool.hpc-tune]`` names in the ``pyproject.toml`` of this or a parent folder: one file, or several.

    Raises:
        UsageError: if there is none.
    """
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        if not path.is_file():
            continue
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("hpc-tune", {})
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path} is not valid TOML: {error}") from error
        if "experiment" in table:
            named = table["experiment"]
            return [folder / str(each) for each in (named if isinstance(named, list) and named else [named])]
    raise UsageError(
        "no experiment given, and no pyproject.toml here or above names one",
        hint='name a file, or add to pyproject.toml:\n[tool.hpc-tune]\nexperiment = "my-search.toml"',
    )
