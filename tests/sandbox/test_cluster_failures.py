"""Nodes that fail at the start of an attempt, and processes that are killed while it runs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hpc_tune_slurm.sandbox import Sandbox

from tests.sandbox.login import Login, Submitted, leftovers

pytestmark = pytest.mark.slurm

NODES = ["iris-169", "iris-170", "iris-171", "iris-172"]

FAULTS = """\
import os, sys, time
from importlib.abc import MetaPathFinder

class Faulty(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "ray" and fault == "no ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        if name == "ray" and "hpc_tune.runtime.ray_start" in sys.orig_argv:
            raise ImportError("libray.so: cannot open shared object file")

fault = os.environ.get("FAULT_" + os.environ.get("SLURMD_NODENAME", "").replace("-", "_"))
if fault == "hangs" and "hpc_tune.runtime.node" in sys.orig_argv:
    time.sleep(3600)
if fault in ("no ray", "broken ray"):
    sys.meta_path.insert(0, Faulty())
"""
"""What a node may have wrong, by an environment variable for each; Python reads it at its start."""
ONE_TRIAL = """\
from ray import tune

def train(config):
    tune.report({"score": 1})
"""


@pytest.fixture(scope="module")
def faulty(user: Login) -> Callable[..., Submitted]:
    """Submit a search of one trial to nodes with faults."""
    folder = user.home / "faults"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(FAULTS)
    path = os.pathsep.join([str(folder), *filter(None, [user.environment.get("PYTHONPATH")])])
    project = user.project(ONE_TRIAL, {"space": {}, "trial": {"cpus": 1}}, name="faulty")

    def submit(*arguments: str, **faults: str) -> Submitted:
        return user.submit(
            project,
            "--cpus-per-node=1",
            *arguments,
            env={f"FAULT_{k}": v for k, v in faults.items()} | {"PYTHONPATH": path},
        )

    return submit


@contextmanager
def full_disk(sandbox: Sandbox, node: str) -> Iterator[None]:
    free = sandbox.exec(node, ["df", "--output=avail", "--block-size=M", "/tmp"]).stdout.split()[1]
    sandbox.exec(node, ["fallocate", f"--length={int(free.rstrip('M')) - 20}M", "/tmp/full"])
    try:
        yield
    finally:
        sandbox.exec(node, ["rm", "/tmp/full"])


def test_a_search_goes_on_without_nodes_that_fail_at_the_start(
    faulty: Callable[..., Submitted], ray_sandbox: Sandbox
) -> None:
    """One worker's disk is full, one never shows itself, one has no Ray."""
    with full_disk(ray_sandbox, NODES[1]):
        submitted = faulty("--nodes=4", iris_171="hangs", iris_172="no ray")
        status = submitted.wait()
    assert status["state"] == "completed", submitted.logs()
    nodes = {node["name"]: node for node in status["nodes"]}
    assert {name: node["state"] for name, node in nodes.items()} == {
        "iris-169": "ended", "iris-170": "failed", "iris-171": "missing", "iris-172": "failed",
    }  # fmt: skip
    assert re.fullmatch(r"/tmp has \d\d MB free; Ray needs 100 MB", nodes["iris-170"]["reason"])
    assert nodes["iris-171"]["reason"] == "its agent has not shown itself"
    assert nodes["iris-172"]["reason"].endswith("ModuleNotFoundError: No module named 'ray'")
    shown = submitted.login.hpc_tune("status", submitted.run.path).stdout
    assert "1 of 4 joined" in shown
    for name in ("iris-170", "iris-172"):
        log = submitted.run.attempts()[0].node_log(name)
        assert str(log) in shown
        assert nodes[name]["reason"].rpartition(": ")[2] in log.read_text()
    assert {node: leftovers(ray_sandbox, node) for node in NODES} == {node: [] for node in NODES}


def test_a_quorum_that_does_not_come_ends_the_job_by_its_deadline(
    faulty: Callable[..., Submitted], ray_sandbox: Sandbox
) -> None:
    submitted = faulty(
        "--nodes=3", "--min-nodes=2", "--set", "allocation.start_timeout=25", f"--exclude={NODES[3]}",
        iris_170="no ray", iris_171="hangs",
    )  # fmt: skip
    status = submitted.wait()
    assert status["state"] == "failed", submitted.logs()
    assert status["reason"].startswith("1 of 3 nodes after 25 s; missing iris-170 (")
    assert status["reason"].endswith("No module named 'ray'), iris-171")
    assert {node: leftovers(ray_sandbox, node) for node in NODES} == {node: [] for node in NODES}


def test_a_head_that_dies_at_its_start_ends_the_job(faulty: Callable[..., Submitted], ray_sandbox: Sandbox) -> None:
    submitted = faulty("--nodes=2", f"--exclude={','.join(NODES[2:])}", iris_169="broken ray")
    status = submitted.wait()
    assert status["state"] == "failed", submitted.logs()
    assert status["reason"].startswith("iris-169: the head of Ray did not start: ImportError: libray.so: cannot open")
    log = submitted.run.attempts()[0].node_log("iris-169")
    assert str(log) in submitted.login.hpc_tune("status", submitted.run.path).stdout
    assert "libray.so" in log.read_text()
    assert {node: leftovers(ray_sandbox, node) for node in NODES} == {node: [] for node in NODES}


# ------------------------------------------------------------------------------- processes that are killed

STAYS = """\
import time
from pathlib import Path
from ray import tune

def train(config):
    for count in range(600):
        tune.report({"score": count})
        if Path(config["open"]).exists():
            return
        time.sleep(0.2)
"""


def kill(sandbox: Sandbox, node: str, pattern: str) -> None:
    """Kill the process on a node whose command line matches; of a guardian and its agent, the agent."""
    pid = sandbox.exec(node, ["pgrep", "--newest", "--full", pattern]).stdout.strip()
    sandbox.exec(node, ["kill", "-KILL", pid])


def test_whatever_is_killed_nothing_is_left_and_the_search_goes_on_while_it_can(
    user: Login, ray_sandbox: Sandbox
) -> None:
    """First a raylet, then the agent of another worker, then that of the head."""
    project = user.project(STAYS, {"space": {"open": str(user.home / "never")}, "trial": {"cpus": 1}}, name="killed")
    submitted = user.submit(project, "--nodes=3", "--min-nodes=3", "--cpus-per-node=1", f"--exclude={NODES[3]}")
    submitted.wait_for(submitted.run.path / "attempts/001/nodes/iris-171.json")

    def results() -> int:
        return sum(each["iterations"] for each in submitted.status()["attempts"])

    def nothing_left(node: str) -> bool:
        return not leftovers(ray_sandbox, node)

    submitted.until(results, "a first result")
    kill(ray_sandbox, "iris-171", "raylet/raylet")
    submitted.until(lambda: nothing_left("iris-171"), "nothing is left on iris-171", 60)
    node = next(each for each in submitted.status()["nodes"] if each["name"] == "iris-171")
    assert (node["state"], node["reason"]) == ("failed", "Ray ended: raylet ended with exit code -9 (signal 9)")

    kill(ray_sandbox, "iris-170", "hpc_tune.runtime.node")
    submitted.until(lambda: nothing_left("iris-170"), "nothing is left on iris-170", 60)
    so_far = results()
    submitted.until(lambda: results() > so_far, "the search goes on")
    assert submitted.status()["state"] == "running"

    kill(ray_sandbox, "iris-169", "hpc_tune.runtime.node")
    status = submitted.wait()
    assert status["state"] == "interrupted", submitted.logs()
    assert status["next"] == [f"hpc-tune resume {submitted.run.path}"]
    assert {node: leftovers(ray_sandbox, node) for node in NODES} == {node: [] for node in NODES}
