"""What Ray is told on a node, and what becomes of its process; a stand-in takes the place of Ray itself."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

import pytest

from hpc_tune.process import MARK, end_marked, is_alive
from hpc_tune.runtime.granted import Resources
from hpc_tune.runtime.network import Ports
from hpc_tune.runtime.ray_node import (
    OPEN_FILES,
    RayNode,
    RayNodeSpec,
    copy_ray_logs,
    start_arguments,
)

PORTS = Ports(gcs=20001, dashboard=20002, dashboard_agent=20003, runtime_env_agent=20004, metrics=20005)
OF_A_NODE = {"dashboard-agent-listen-port": 20003, "runtime-env-agent-port": 20004, "metrics-export-port": 20005}
RAYS_OWN_PORTS = ("6379", "8265", "10001", "10002", "19999", "52365")
"""The same for every cluster: two jobs on one node would be in each other's way."""
SPEC = RayNodeSpec("10.77.0.11", PORTS, Resources(28, 4, 500 * 2**30, 100 * 2**30), Path("/tmp/hpc-tune-x1"))
JOINING = RayNodeSpec("10.77.0.12", PORTS, SPEC.resources, SPEC.temp_dir, head="10.77.0.11:20001")


def options(spec: RayNodeSpec) -> dict[str, str]:
    """Return the options of ``ray start`` without their dashes; each may be given once."""
    command, *words = start_arguments(spec)
    assert command == "start"
    split = [word.removeprefix("--").partition("=") for word in words]
    found = {name: value for name, _, value in split}
    assert len(found) == len(words)
    return found


# ------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("spec", [SPEC, JOINING], ids=["head", "worker"])
def test_nothing_is_left_to_what_the_machine_has(spec: RayNodeSpec) -> None:
    given = options(spec)
    assert given["node-ip-address"] == spec.address
    assert given["temp-dir"] == "/tmp/hpc-tune-x1"
    assert (given["num-cpus"], given["num-gpus"]) == ("28", "4")
    assert (given["memory"], given["object-store-memory"]) == (str(500 * 2**30), str(100 * 2**30))
    assert {name: int(given[name]) for name in OF_A_NODE} == OF_A_NODE
    assert given["min-worker-port"] == given["max-worker-port"] == "0"
    assert {"block", "disable-usage-stats"} <= set(given)
    assert not set(RAYS_OWN_PORTS) & set(given.values())


def test_a_head_names_its_own_ports_and_keeps_its_dashboard_to_itself() -> None:
    given = options(SPEC)
    assert (given["port"], given["dashboard-port"], given["dashboard-host"]) == ("20001", "20002", "127.0.0.1")
    assert "head" in given
    assert "address" not in given
    assert given["include-dashboard"] == "false"
    assert "no-monitor" in given, "it would scale a cluster that Slurm has sized"
    assert {int(value) for name, value in given.items() if name.endswith("port") and value != "0"} == set(
        astuple(PORTS)
    )


def test_a_worker_joins_the_head_that_it_is_told() -> None:
    """``auto`` may join a stranger's cluster."""
    given = options(JOINING)
    assert given["address"] == "10.77.0.11:20001"
    assert not {"head", "port", "dashboard-port"} & set(given)


def test_what_slurm_does_not_limit_ray_decides() -> None:
    given = options(RayNodeSpec("10.77.0.11", PORTS, Resources(2, 0, None, None), Path("/tmp/x")))
    assert given["num-gpus"] == "0"
    assert not {"memory", "object-store-memory"} & set(given)


def test_ray_knows_every_option() -> None:
    from ray.scripts.scripts import start

    known = {name.removeprefix("--") for parameter in start.params for name in parameter.opts}
    assert set(options(SPEC)) | set(options(JOINING)) <= known


# ------------------------------------------------------------------------------- the process

SCRIPTS = """\
import json, os, signal, subprocess, sys, time
def main():
    print("arguments", json.dumps(sys.argv), flush=True)
{body}
"""
STAY = "    time.sleep(100)"
STARTED = '    print("Ray runtime started.", flush=True)\n'


def pretend(tmp_path: Path, body: str) -> dict[str, str]:
    """Return an environment in which Ray does what ``body`` says."""
    package = tmp_path / "ray/scripts"
    package.mkdir(parents=True)
    (tmp_path / "ray/__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "scripts.py").write_text(SCRIPTS.format(body=body))
    (tmp_path / "ray/_private").mkdir()
    (tmp_path / "ray/_private/services.py").write_text("RAY_PATH = ''\nstart_ray_process = None\n")
    return os.environ | {"PYTHONPATH": str(tmp_path), MARK: str(tmp_path)}


@contextmanager
def stand_in(tmp_path: Path, body: str, log: Path | None = None) -> Iterator[RayNode]:
    """Start a node with such a Ray, and end it as a node agent does."""
    with ending(RayNode(pretend(tmp_path, body), log or tmp_path / "node.log"), tmp_path) as node:
        yield node


@contextmanager
def ending(node: RayNode, mark: Path) -> Iterator[RayNode]:
    try:
        yield node
    finally:
        end_marked(str(mark))
        ended(node)
        node._reader.join(timeout=20)
        assert node._process.stdin is not None
        node._process.stdin.close()


def ended(node: RayNode) -> int:
    return node._process.wait(timeout=20)


def test_a_node_is_up_when_ray_says_so(tmp_path: Path) -> None:
    with stand_in(tmp_path, f"{STARTED}{STAY}") as node:
        assert not node.up.is_set()
        assert node.exit_code is None
        node.start(SPEC)
        assert node.up.wait(20)
        assert node.exit_code is None
        pid = node._process.pid
    assert not is_alive(pid)
    logged = (tmp_path / "node.log").read_text()
    assert f"arguments {json.dumps(['ray', *start_arguments(SPEC)])}\n" in logged  # what it was told, unchanged
    assert logged.endswith("Ray runtime started.\n")


def test_a_log_is_added_to(tmp_path: Path) -> None:
    log = tmp_path / "iris-169.log"
    log.write_text("10:00:00 starting\n")
    with stand_in(tmp_path, '    print("second")', log) as node:
        node.start(SPEC)
        ended(node)
    assert log.read_text().startswith("10:00:00 starting\narguments ")
    assert log.read_text().endswith("second\n")


TRACEBACK = """\
    print('Traceback (most recent call last):')
    print('  File "node.py", line 1, in <module>')
    print('OSError: [Errno 98] Address already in use')
    print('During handling of the above exception, another exception occurred:')
    print('ray.exceptions.RaySystemError: System error: GCS cannot bind 10.77.0.11:20001')
    print('  see the logs')
    sys.exit(1)
"""
KILLED = """\
    print('2026-11-24 06:54:42,619 ERR scripts.py:1307 -- Some Ray subprocesses exited unexpectedly:')
    print('2026-11-24 06:54:42,620 ERR scripts.py:115 -- ----- BEGIN raylet.out tail (exit code(s)=-9 (signal 9)) ---')
    print('[2026-11-24 06:54:30,982 I 34 43] (raylet) object_store.cc:37: Object store current usage 8e-09 / 0.63 GB.')
    print('2026-11-24 06:54:42,620 ERR scripts.py:128 -- ----- END raylet.out tail (exit code(s)=-9 (signal 9)) -----')
    print('2026-11-24 06:54:42,620 ERR scripts.py:1315 -- Remaining processes will be killed.')
    sys.exit(1)
"""


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        (TRACEBACK, "ray.exceptions.RaySystemError: System error: GCS cannot bind 10.77.0.11:20001"),
        ("    print('ValueError: first'); print('later words'); sys.exit(1)", "ValueError: first"),
        ("    print('Error: No such option: --prot'); sys.exit(2)", "Error: No such option: --prot"),
        ("    print('see the Error: nothing'); print('last words'); sys.exit(1)", "last words"),
        ("    print('   '); print(); sys.exit(3)", "arguments ["),
        ("    print('x' * 5000); sys.exit(1)", "x" * 300),
        (
            "    sys.stdout.buffer.write(b'OSError: caf\\xe9\\n'); sys.exit(1)",
            "OSError: caf\N{REPLACEMENT CHARACTER}",
        ),
        ("    import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        (KILLED, "raylet ended with exit code -9 (signal 9)"),
    ],
    ids=["traceback", "error first", "click", "no error", "nothing more", "long", "no utf-8", "import", "killed"],
)
def test_a_failure_is_one_sentence(tmp_path: Path, body: str, failure: str) -> None:
    with stand_in(tmp_path, body) as node:
        node.start(SPEC)
        assert ended(node) != 0
        assert not node.up.is_set()
        assert node.failure().startswith(failure)
        assert len(node.failure()) <= 300
        assert "\n" not in node.failure()


def test_a_ray_that_said_nothing_has_an_exit_code(tmp_path: Path) -> None:
    with stand_in(tmp_path, STAY) as node:
        node._process.kill()
        ended(node)
        assert node.failure() == "exit code -9"


def test_a_python_without_ray_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken/ray").mkdir(parents=True)
    (tmp_path / "broken/ray/__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'ray'\")\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "broken")}
    with ending(RayNode(environment, tmp_path / "node.log"), tmp_path) as node:
        ended(node)
        node.start(SPEC)  # too late, and no error of its own
        assert node.failure() == "ModuleNotFoundError: No module named 'ray'"


def test_an_agent_that_ends_before_there_is_something_to_join(tmp_path: Path) -> None:
    """It closes the pipe: nothing is started, and nothing is left."""
    with stand_in(tmp_path, STARTED) as node:
        assert node._process.stdin is not None
        node._process.stdin.close()
        assert ended(node) == 0
    assert (tmp_path / "node.log").read_text() == ""


def test_last_words_that_are_still_on_their_way(tmp_path: Path) -> None:
    """The process may be gone before all that it said has been read."""
    with stand_in(tmp_path, "    print('x\\n' * 50_000 + 'OSError: late'); sys.stdout.flush(); os._exit(1)") as node:
        node.start(SPEC)
        ended(node)
        assert node.failure() == "OSError: late"


AGENT = """\
import os, sys
from pathlib import Path
from hpc_tune.runtime.ray_node import RayNode
node = RayNode(os.environ | {"PYTHONPATH": sys.argv[1]}, Path(os.devnull))
print(node._process.pid, flush=True)
sys.stdin.readline()
os._exit(1)
"""


def test_when_the_agent_dies_ray_ends_too(tmp_path: Path) -> None:
    pretend(tmp_path, STAY)
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdout is not None
        child = int(agent.stdout.readline())
        assert is_alive(child)
        agent.communicate("die\n", timeout=20)
    descriptor = _pidfd(child)
    if descriptor is not None:
        import select

        assert select.select([descriptor], [], [], 20)[0]
        os.close(descriptor)
    assert not is_alive(child)


def _pidfd(pid: int) -> int | None:
    """Return a descriptor that can be read when the process has ended; None if that is so already."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


WITH_GRPC = """\
import json, sys
import ray._private.parameter, ray.scripts.scripts as scripts
class Seen(Exception): pass
def seen(**given):
    print(json.dumps(given["ray_client_server_port"]), flush=True)
    sys.exit()
scripts.ray._private.parameter.RayParams = seen
from hpc_tune.runtime.ray_start import main
main()
"""


def test_nobody_serves_ray_client(tmp_path: Path) -> None:
    """Where grpcio is installed Ray would, on port 10001 of every cluster."""
    (tmp_path / "grpc.py").touch()
    done = subprocess.run(
        [sys.executable, "-c", WITH_GRPC],
        input=json.dumps(start_arguments(SPEC)),
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1:] == ["null"], done.stderr


# ------------------------------------------------------------------------------- files


def test_as_many_open_files_as_ray_needs() -> None:
    code = (
        "import resource as r; from hpc_tune.runtime.ray_node import raise_file_limit;"
        "r.setrlimit(r.RLIMIT_NOFILE, (64, {hard})); raise_file_limit(); print(*r.getrlimit(r.RLIMIT_NOFILE))"
    )
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES if most == resource.RLIM_INFINITY else min(most, OPEN_FILES)
    for hard, raised in ((500, 500), (most, allowed)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(hard=hard)], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [str(raised), str(hard)]


def test_logs_of_a_failed_node_are_kept_by_their_ends(tmp_path: Path) -> None:
    logs = tmp_path / "session_2026-11-22_10-15-00_000001_12/logs"
    logs.mkdir(parents=True)
    (logs / "raylet.out").write_text("begin" + "x" * 50 + "the end")
    (logs / "gcs_server.err").write_text("short")
    (logs / "empty.log").touch()
    (logs / "core").write_text("no log")
    (logs / "old").mkdir()
    (tmp_path / "session_latest").symlink_to(logs.parent)
    copy_ray_logs(tmp_path, tmp_path / "kept", most=10)
    assert {path.name: path.read_text() for path in (tmp_path / "kept").iterdir()} == {
        "raylet.out": "xxxthe end",
        "gcs_server.err": "short",
    }


def test_a_ray_that_never_began_leaves_no_folder(tmp_path: Path) -> None:
    copy_ray_logs(tmp_path, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
