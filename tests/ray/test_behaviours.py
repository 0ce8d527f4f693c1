"""Trainables that misbehave: the search goes on, and the tables say what happened."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.ray.conftest import Search
from tests.unit.test_tfevents import read_scalars

pytestmark = pytest.mark.ray

BEHAVIOURS = """
import math, os, subprocess, sys, threading, time
from pathlib import Path
from ray import tune

def train(config):
    behaviour = config["behaviour"]
    if behaviour == "raises":
        raise ValueError("no data")
    if behaviour == "silent":
        return
    if behaviour == "nan":
        tune.report({"score": math.nan})
        return
    if behaviour == "megabyte":
        print("x" * 1_000_000)
    if behaviour == "children":
        children = [subprocess.Popen(["sleep", "600"]).pid, os.fork()]
        if not children[1]:
            time.sleep(600)
        orphan = subprocess.run(["sh", "-c", "sleep 600 >/dev/null & echo $!"], stdout=subprocess.PIPE).stdout
        Path(config["children"]).write_text(" ".join(map(str, [*children, int(orphan)])))
    if behaviour == "threads":
        threading.Thread(target=time.sleep, args=[600]).start()
    if behaviour == "after children":
        alive = [pid for pid in Path(config["children"]).read_text().split() if Path("/proc", pid).exists()]
        assert not alive, alive
    tune.report({"score": 1.0, "deep": {"er": 2}, "process": os.getpid()})
"""

WELL = ["megabyte", "children", "after children", "threads", "after threads"]


def test_whatever_a_trial_does_the_others_go_on(search: Search) -> None:
    behaviours = ["raises", "silent", "nan", *WELL]
    space = {"behaviour": {"grid": behaviours}, "children": str(search.folder / "children")}
    search.write(BEHAVIOURS, {"space": space})
    search.run("--cpus", "1")
    rows = {row["config/behaviour"]: row for row in search.table()}
    assert {name: rows[name]["status"] for name in behaviours} == {"raises": "ERROR"} | dict.fromkeys(
        ["silent", "nan", *WELL], "TERMINATED"
    )
    assert rows["raises"]["error"].startswith("ValueError: no data (train.py:9)")
    assert (rows["silent"]["iterations"], rows["silent"]["score"]) == ("0", "")
    assert rows["nan"]["iterations"] == "1"
    assert math.isnan(float(rows["nan"]["score"] or "nan"))
    assert {rows[name]["score"] for name in WELL} == {"1.0"}
    folders = {name: search.directory / "storage" / row["trial_id"] for name, row in rows.items()}
    assert (folders["megabyte"] / "output.log").stat().st_size == 1_000_001
    (summary,) = search.table("summary")
    assert float(summary["best_value"]) == 1.0

    events = list(search.directory.glob("storage/*/events.out.tfevents.*"))
    assert sorted(path.parent for path in events) == sorted(folders[name] for name in [*WELL, "nan"])
    (told,) = folders["children"].glob("events.*")
    scalars = read_scalars(Path(told))
    assert (scalars["ray/tune/score"], scalars["ray/tune/deep/er"]) == ([(1, 1.0)], [(1, 2.0)])
