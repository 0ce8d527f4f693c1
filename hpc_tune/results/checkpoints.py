"""The checkpoints of one trial that are still there, with what the trial had reached when it wrote them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["Checkpoint", "best_checkpoint", "trial_config"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is whole. ``iteration`` and ``value`` are None where no result names it."""

    path: Path
    iteration: int | None = None
    value: float | None = None


def best_checkpoint(folder: Path, newest: Path | None, metric: str, mode: Literal["min", "max"]) -> Checkpoint | None:
    """Return the checkpoint of a trial's folder with the metric's best value, of equals the newest.

    Args:
        folder: the trial's folder.
        newest: the newest checkpoint, which is all that is known of a class trainable's.
        metric: the metric's name, nested ones with ``/``.
        mode: whether the metric is to be ``min`` or ``max``.
    """
    sign = 1 if mode == "max" else -1
    named = list(_named(folder, metric))
    valued = [(sign * each.value, number, each) for number, each in enumerate(named) if each.value is not None]
    if valued:
        return max(valued, key=lambda one: one[:2])[2]
    if named:
        return named[-1]
    return Checkpoint(newest) if newest else None


def _named(folder: Path, metric: str) -> Iterator[Checkpoint]:
    """Yield the checkpoints that results name and that hold all that they did when they were new."""
    try:
        lines = (folder / "result.json").read_bytes().split(b"\n")
    except OSError:
        return
    rows = {}
    for line in lines:
        try:
            row = json.loads(line)
            rows[str(row["checkpoint_dir_name"])] = row
        except (ValueError, TypeError, KeyError):  # half a line, or a result without a checkpoint
            continue
    for name, row in rows.items():
        path = folder / name
        if path.is_dir() and _size(path) >= row.get("checkpoint_bytes", 1):
            yield Checkpoint(path, row.get("training_iteration"), _number(row, metric))


def _number(row: dict[str, Any], name: str) -> float | None:
    value: Any = row
    if name not in row:
        for key in name.split("/"):
            value = value.get(key) if isinstance(value, dict) else None
    else:
        value = row[name]
    return value if type(value) in (int, float) and not math.isnan(value) else None


def _size(folder: Path) -> int:
    files = (Path(above, name) for above, _, names in os.walk(folder) for name in names)
    return sum(file.stat().st_size for file in files)


def trial_config(folder: Path) -> dict[str, Any] | None:
    """Return a trial's config as it was given to the trainable; None when it is not to be read."""
    try:
        config = json.loads((folder / "params.json").read_bytes())
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None
