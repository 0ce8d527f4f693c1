"""``hpc-tune doctor`` on a real Slurm: before a search, and after one that failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hpc_tune_slurm.sandbox import Sandbox

from hpc_tune.site import Environment
from tests.sandbox.conftest import SITE
from tests.sandbox.login import Login

pytestmark = pytest.mark.slurm

FORGETS_TO_REPORT = """\
from ray import tune

def train(config):
    tune.report({"accuracy": 1})
"""


def checks(said: str) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(said)["checks"]}


def test_a_cluster_that_is_ready(user: Login) -> None:
    done = user.call([user.python, "-m", "hpc_tune", "doctor", "--job", "--json", "--runs-dir", user.home / "runs"])
    found = checks(done.stdout)
    assert found["slurm"]["sentence"].endswith("of cluster iris"), done.stdout + done.stderr
    assert found["compute node"]["state"] == "ok"
    assert found["shared"]["sentence"].startswith("iris-")
    assert found["same software"]["state"] == "ok"
    machines = json.loads(done.stdout)["machines"]
    assert machines[1]["host"].startswith("iris-")
    assert machines[1]["shared_memory"] == 1024 * 2**20
    assert list(user.home.glob(".hpc-tune-doctor-*")) == []


def test_what_only_a_node_can_tell(user: Login, tmp_path: Path, ray_sandbox: Sandbox) -> None:
    """/tmp is each node's own; and a Python that is not there is found before a search is sent."""
    done = user.hpc_tune("doctor", "--job", "--json", "--runs-dir", "/tmp", exit_code=1)
    assert checks(done.stdout)["shared"]["state"] == "fail"
    user.use_site(SITE.model_copy(update={"environment": Environment(venv="/no/such/venv")}))
    try:
        done = user.hpc_tune("doctor", "--job", "--json", exit_code=1)
    finally:
        user.use_site(SITE)
    assert "/no/such/venv/bin/activate" in checks(done.stdout)["compute node"]["sentence"]
    ray_sandbox.wait_idle(60)


def test_a_search_that_failed(user: Login) -> None:
    project = user.project(FORGETS_TO_REPORT, {"space": {}, "trial": {"cpus": 1}}, name="forgetful")
    submitted = user.submit(project, "--nodes=1", "--cpus-per-node=1")
    status = submitted.wait()
    assert status["state"] == "failed", submitted.logs()
    said = json.loads(user.hpc_tune("doctor", submitted.run.path, "--json").stdout)
    assert said["causes"][0]["rule"] == "metric missing", submitted.logs()
    assert "'score'" in said["causes"][0]["sentence"]
