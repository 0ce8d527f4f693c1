"""What trials leave on disk, made by hand, and a report taken apart."""

from __future__ import annotations

import base64
import html
import json
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

from hpc_tune.run import RunDir

START = 1_795_478_500.0
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class MadeTrials:
    """Trials in a run's storage path, each iteration two seconds long."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._states: list[dict[str, Any]] = []

    def add(
        self,
        trial_id: str,
        values: Sequence[float],
        *,
        config: Mapping[str, Any] | None = None,
        status: str = "TERMINATED",
        start: float = START,
        node: str = "iris-169",
        checkpoints: Mapping[int, bytes] | None = None,
        error: str | None = None,
        tag: str = "",
    ) -> Path:
        folder = self.run.storage / trial_id
        folder.mkdir()
        settings = dict(config or {"lr": 0.1})
        (folder / "params.json").write_text(json.dumps(settings))
        self.report(folder, values, start=start, node=node, checkpoints=checkpoints or {})
        if error is not None:
            (folder / "error.txt").write_text(f"Failure # 1 (occurred at 2026)\n{error}\n")
        self._states.append(
            {"trial_id": trial_id, "status": status, "config": settings, "relative_logdir": trial_id,
             "evaluated_params": _flat(settings), "experiment_tag": tag}
        )  # fmt: skip
        with zipfile.ZipFile(self.run.storage / "state.zip", "w") as archive:
            entries = [[json.dumps(each), "{}"] for each in self._states]
            archive.writestr("experiment_state-1.json", json.dumps({"trial_data": entries}))
        return folder

    def report(
        self, folder: Path, values: Sequence[float], *, start: float, node: str, first: int = 1,
        checkpoints: Mapping[int, bytes] | None = None,
    ) -> None:  # fmt: skip
        """Append results to a trial's log, from iteration ``first`` on."""
        with (folder / "result.json").open("a") as file:
            for number, value in enumerate(values, first):
                name = None
                if (data := (checkpoints or {}).get(number)) is not None:
                    name = f"checkpoint_{number - 1:06d}"
                    (folder / name).mkdir()
                    (folder / name / "state.pt").write_bytes(data)
                line = {
                    "accuracy": value, "loss": 1 - value, "training_iteration": number, "trial_id": folder.name,
                    "timestamp": int(start) + 2 * (number - first + 1), "time_this_iter_s": 2.0,
                    "time_total_s": 2.0 * number,
                    "hostname": node, "pid": 7, "done": False, "checkpoint_dir_name": name,
                }  # fmt: skip
                if data is not None:
                    line["checkpoint_bytes"] = len(data)
                file.write(json.dumps(line) + "\n")

    def exploits(self, *lines: tuple[str, str, int, int, Mapping[str, Any]]) -> None:
        """Write a population's log: member, source, their iterations, the new config."""
        with (self.run.storage / "pbt_global.txt").open("w") as file:
            for member, source, iteration, source_iteration, config in lines:
                file.write(json.dumps([member, source, iteration, source_iteration, {}, config]) + "\n")


def _flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= _flat(value, f"{above}{key}/") if isinstance(value, dict) else {above + key: value}
    return found


def curve(top: float, iterations: int) -> list[float]:
    return [top * (1 - math.exp(-iteration / 3)) for iteration in range(1, iterations + 1)]


class Page:
    """A report as a reader finds it."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text(encoding="utf-8")
        found = re.findall(r'<script type="application/json" data-of="([^"]+)">(.*?)</script>', self.text, re.DOTALL)
        self.figures = {html.unescape(name): json.loads(content) for name, content in found}

    def value(self, place: str) -> str:
        """Return the exact number behind the one that is shown."""
        found = re.search(rf'<data[^>]*id="{place}"[^>]*value="([^"]*)"', self.text)
        assert found, place
        return found[1]

    def section(self, place: str) -> str:
        """Return the text of an element by its id; its tags become line ends."""
        found = re.search(rf'<(\w+)[^>]*id="{place}"[^>]*>(.*?)</\1>', self.text, re.DOTALL)
        assert found, place
        return html.unescape(re.sub(r"<[^>]+>", "\n", found[2]))

    @property
    def words(self) -> str:
        """Return all that stands outside of scripts and styles, on one line."""
        body = re.sub(r"<(script|style)\b.*?</\1>", " ", self.text, flags=re.DOTALL)
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())

    def trace(self, figure: str, name: str) -> dict[str, list[Any]]:
        """Return the x, y and text of the trace whose name begins so."""
        (trace,) = [each for each in self.figures[figure]["data"] if str(each.get("name")).startswith(name)]
        return {key: decoded(trace.get(key)) for key in ("x", "y", "text", "base", "customdata")}


def decoded(values: Any) -> list[Any]:
    """Return the numbers of a column, which plotly packs."""
    if isinstance(values, dict):
        column: list[Any] = numpy.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).tolist()
        return column
    return list(values or [])
