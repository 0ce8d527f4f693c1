"""Storage paths made by hand."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from hpc_tune.results.tables import SearchInfo

START = 1_795_478_500  # 2026-11-24T00:01:40Z
NAN = float("nan")
MEMBER = "experiment_state-1.json"
Object = dict[str, Any]
Line = dict[str, Any] | str


def search(**changes: Any) -> SearchInfo:
    values = {"metric": "acc", "mode": "max", "trial_cpus": 2.0, "trial_gpus": 0.5, "live": False}
    return SearchInfo(**{**values, **changes})


def result(iteration: int, **metrics: Any) -> dict[str, Any]:
    """Make a result as Ray logs it; each iteration takes two seconds."""
    return {
        **metrics,
        "timestamp": START + 2 * iteration,
        "checkpoint_dir_name": None,
        "should_checkpoint": False,
        "done": False,
        "training_iteration": iteration,
        "date": "2026-11-24_00-02-19",
        "time_this_iter_s": 2.0,
        "time_total_s": 2.0 * iteration,
        "pid": 4711,
        "hostname": "iris-172",
        "node_ip": "192.0.2.2",
        "time_since_restore": 2.0 * iteration,
        "iterations_since_restore": iteration,
        "__private__": 1,
    } | metrics


class Storage:
    """A storage path in the making."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def trial(self, trial_id: str, *lines: Line, config: Object | None = None) -> Path:
        """Add a trial's folder; a line that is a string is written as it is, without a line end."""
        folder = self.path / trial_id
        folder.mkdir()
        with (folder / "result.json").open("w") as file:
            for line in lines:
                text = line if isinstance(line, str) else json.dumps({"trial_id": trial_id} | line) + "\n"
                file.write(text)
        (folder / "params.json").write_text(json.dumps({"lr": 0.1} if config is None else config))
        return folder

    def state(self, *, name: str = "state.zip", member: str = MEMBER, **statuses: str) -> Path:
        """Write an experiment state; trials are named with their status, ``a_00001="ERROR"``."""
        path = self.path / name
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(member, state_json(*(static(*item) for item in statuses.items())))
        return path


def static(trial_id: str, status: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "trial_id": trial_id,
        "status": status,
        "config": config or {"lr": 0.7},
        "relative_logdir": trial_id,
    }


def state_json(*trials: dict[str, Any]) -> str:
    metadata = json.dumps({"last_result": {"x": "y" * 1000}})
    entries = [[json.dumps(trial, indent=2), metadata] for trial in trials]
    return json.dumps({"trial_data": entries, "runner_data": {}, "stats": {}})
