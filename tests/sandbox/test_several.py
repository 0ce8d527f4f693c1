"""Several experiments in one job: each has its run, and neither a failure nor a cancellation ends the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hpc_tune_slurm.sandbox import Sandbox

from hpc_tune.run import RunDir
from tests.sandbox.login import Login, Submitted, leftovers, read_table

pytestmark = pytest.mark.slurm

THREE = """\
import time
from pathlib import Path
from ray import tune

def fails(config):
    raise ValueError("no data")

def endless(config):
    while True:
        tune.report({"score": 1.0})
        time.sleep(0.1)

def ends(config):
    tune.report({"score": config["x"]})
"""


def waiting(submitted: Submitted) -> str:
    """Return why a run is said to wait."""
    status = submitted.status()
    assert (status["state"], status["live"], status["over"]) == ("pending", True, False), status
    return str(status["reason"])


def test_three_runs_in_one_job(user: Login, ray_sandbox: Sandbox) -> None:
    project = user.project(THREE, {}, name="three")
    base: dict[str, Any] = {"metric": "score", "mode": "max", "space": {"x": 3}}
    for name in ("fails", "endless", "ends"):
        spec = base | {"name": name, "trainable": f"train.py:{name}"}
        (project / f"{name}.json").write_text(json.dumps(spec))
    files = [f"{name}.json" for name in ("fails", "endless", "ends")]
    said = json.loads(user.hpc_tune("submit", "--json", *files, "--nodes=2", cwd=project).stdout)
    job_ids = {each["job_id"] for each in said["runs"]}
    (job_id,) = job_ids
    fails, endless, ends = (Submitted(user, RunDir(Path(each["path"])), job_id) for each in said["runs"])
    assert f"waits behind {endless.run.name}, which is pending: waits behind {fails.run.name}" in waiting(ends)

    endless.wait_for(endless.run.path / "attempts/001/progress.json")
    assert fails.status()["state"] == "failed"
    endless.until(lambda: endless.status()["trials"].get("running"), "a trial")
    assert f"waits behind {endless.run.name}, which is running: attempt 1 runs in job {job_id}" in waiting(ends)
    answer = json.loads(user.hpc_tune("cancel", "--json", endless.run.path, cwd=project).stdout)
    assert (answer["running_jobs"], answer["goes_on"]) == ([job_id], [ends.run.name])
    assert answer["outcome"]["ending"] == "interrupted"

    status = ends.wait()
    assert (status["state"], status["trials"]) == ("completed", {"total": 1, "terminated": 1}), ends.logs()
    assert endless.status()["state"] == "cancelled"
    states = {each.run.name: read_table(each.run.path, "trials")[0]["status"] for each in (fails, endless, ends)}
    assert list(states.values()) == ["ERROR", "INTERRUPTED", "TERMINATED"]
    ends.until(lambda: ends.job_state() == "FAILED", "the job to end as its first run has, not its last")
    assert ends.status()["state"] == "completed"
    for each in (fails, endless, ends):  # each says in its own log what its part of the job did
        assert "attempt 1: " in each.run.job_log(job_id).read_text()
    assert all(leftovers(ray_sandbox, node) == [] for node in ("iris-169", "iris-170"))
