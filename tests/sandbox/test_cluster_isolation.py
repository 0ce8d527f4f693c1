"""The Rays of several jobs on the same nodes: nobody notices another, nobody gets in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hpc_tune_slurm.sandbox import Sandbox

from hpc_tune.attempt import Head
from tests.sandbox.login import Login, Submitted, leftovers, read_table

pytestmark = pytest.mark.slurm

NODES = ["iris-169", "iris-170", "iris-171", "iris-172"]

NEIGHBOURS = """\
import os, time
from pathlib import Path
import ray
from ray import tune

def train(config):
    meeting = Path(config["meeting"])
    (meeting / os.environ["SLURM_JOB_ID"]).touch()
    deadline = time.monotonic() + 200
    while not (meeting / "open").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    tune.report({
        "score": 1,
        "user": os.getuid(),
        "cluster": ray.get_runtime_context().gcs_address,
        "nodes_seen": len(nodes),
        "cpus_seen": sum(node["Resources"].get("CPU", 0) for node in nodes),
    })
"""
"""A trial stays until the test has seen enough, then tells what its Ray looks like from within."""
INTRUDER = """\
import os, sys, time
import ray
from ray._raylet import GcsClient

def lists_nodes():
    return len(GcsClient(address=sys.argv[2]).get_all_node_info(timeout=10))

def joins():
    ray.init(address=sys.argv[2], log_to_driver=False)
    return ray.get(ray.remote(os.getuid).remote(), timeout=10)

try:
    print("got", globals()[sys.argv[1]]())
except Exception as error:
    print("refused:", type(error).__name__, error)
"""
BROWSER = """\
import sys, urllib.error, urllib.request
for port in sys.argv[2:]:
    for path in ("/", "/metrics", "/nodes?view=summary", "/api/jobs/", "/api/version", "/get_runtime_envs_info"):
        for data in (None, b""):
            request = urllib.request.Request(f"http://{sys.argv[1]}:{port}{path}", data=data)
            try:
                with urllib.request.urlopen(request, timeout=1) as answer:
                    print(port, path, answer.status)
            except Exception as error:
                pass
"""


def ports_on(sandbox: Sandbox, node: str) -> list[str]:
    """Return the TCP ports on which somebody listens, apart from Slurm."""
    lines = sandbox.exec(node, ["ss", "--listening", "--tcp", "--numeric", "--processes", "--no-header"]).stdout
    return [
        line.split()[3].rpartition(":")[2]
        for line in lines.splitlines()
        if '"srun"' not in line and ":6818" not in line
    ]


@pytest.fixture(scope="module")
def neighbours(
    ray_sandbox: Sandbox, user: Login, new_nobody: Callable[[Sandbox], Login], homes: Path
) -> Iterator[list[Submitted]]:
    """Two searches of root and one of nobody on the same two nodes, all three at work at the same time."""
    meeting = homes / "neighbours"
    meeting.mkdir(mode=0o777)
    meeting.chmod(0o777)
    experiment = {"space": {"meeting": str(meeting)}, "trial": {"cpus": 1}}
    arguments = ("--nodes=2", "--min-nodes=2", "--cpus-per-node=1", f"--exclude={','.join(NODES[2:])}")
    other = new_nobody(ray_sandbox)
    mine, theirs = (login.project(NEIGHBOURS, experiment, name="neighbour") for login in (user, other))
    submitted = [user.submit(mine, *arguments), user.submit(mine, *arguments), other.submit(theirs, *arguments)]
    for each in submitted:
        each.wait_for(meeting / each.job_id)
    yield submitted
    (meeting / "open").touch()
    for each in submitted:
        each.wait()


def test_another_user_who_knows_the_address_gets_nowhere(neighbours: list[Submitted]) -> None:
    mine, theirs = neighbours[0], neighbours[-1].login
    head = Head.read(mine.run.attempts()[0].head_file)
    assert head is not None

    def intrude(login: Login, what: str, **env: str) -> str:
        return login.call([login.python, "-c", INTRUDER, what, head.address], env=env).stdout

    with_token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(mine.run.attempts()[0].token_file)}
    assert intrude(mine.login, "lists_nodes", **with_token) == "got 2\n"
    guessed = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    for env in ({}, guessed, with_token):
        assert "got" not in intrude(theirs, "lists_nodes", **env)
    assert intrude(theirs, "joins").startswith("refused: ")


def test_another_user_finds_no_dashboard(neighbours: list[Submitted], ray_sandbox: Sandbox) -> None:
    for node in NODES[:2]:
        ports = ports_on(ray_sandbox, node)
        assert len(ports) >= 3 * 3, "each Ray listens on some"
        address = next(each.address for each in neighbours[0].run.attempts()[0].nodes() if each.name == node)
        for host in (address, "127.0.0.1"):
            argv = [neighbours[-1].login.python, "-c", BROWSER, host, *ports]
            assert ray_sandbox.exec(node, argv, user="nobody").stdout == ""


def test_another_user_reads_nothing_of_a_run(neighbours: list[Submitted]) -> None:
    mine, theirs = neighbours[0].run, neighbours[-1].login
    for path in (mine.path, mine.job_script, mine.attempts()[0].token_file):
        assert theirs.call(["cat", path]).returncode != 0
    assert theirs.call(["ls", mine.path]).returncode != 0


def test_jobs_on_the_same_nodes_do_not_notice_each_other(neighbours: list[Submitted], homes: Path) -> None:
    (homes / "neighbours/open").touch()
    for each in neighbours:
        assert each.wait()["state"] == "completed", each.logs()
    rows = [row for each in neighbours for row in read_table(each.run.path, "trials")]
    assert len({row["cluster"] for row in rows}) == 3
    assert [(float(row["nodes_seen"]), float(row["cpus_seen"])) for row in rows] == [(2, 2)] * 3
    assert [row["user"] for row in rows] == ["0", "0", "65534"]
    assert {node: leftovers(neighbours[0].login.sandbox, node) for node in NODES} == {node: [] for node in NODES}
