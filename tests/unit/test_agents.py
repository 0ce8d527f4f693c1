"""Node agents as the processes that srun starts; a stand-in takes the place of Ray."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hpc_tune.attempt import Attempt, AttemptRecord, Head, NodeRecord, Outcome, SlurmJob
from hpc_tune.process import MARK, end_marked, is_alive
from hpc_tune.run import RunDir
from hpc_tune.runtime.agent import NodeSettings
from hpc_tune.runtime.checkpointing import STOP_FILE
from hpc_tune.runtime.environment import attempt_environment
from hpc_tune.runtime.granted import Place
from hpc_tune.runtime.worker import WorkerAgent

RAY = """\
import os
def init(**given):
    raise ValueError("joined " + given["address"])
def shutdown():
    pass
"""
SCRIPTS = """\
import os, socket, sys, time
from pathlib import Path
HERE = Path(__file__).parent
def option(name):
    return next((word.partition("=")[2] for word in sys.argv if word.startswith(f"--{name}=")), None)
def started():
    print("Ray runtime started.", flush=True)
    (HERE / "pid").write_text(str(os.getpid()))
def main():
    with open(HERE / "starts", "a") as starts:
        print(*sys.argv, file=starts)
    start = len((HERE / "starts").read_text().splitlines())
"""
STAY = "    started(); time.sleep(100)\n"
SERVE = f"""\
    if option("port"): head = socket.create_server(("", int(option("port"))))
{STAY}"""
TAKEN = "    print('OSError: [Errno 98] Address already in use'); sys.exit(1)\n"
TAKEN_ONCE = f"    if start == 1: print('OSError: [Errno 98] Address already in use'); sys.exit(1)\n{STAY}"
SLURM = {
    "SLURM_JOB_ID": "4711", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "iris-[169-170]", "SLURM_CPUS_ON_NODE": "4",
}  # fmt: skip
ALONE = {"SLURM_NTASKS": "1", "SLURM_JOB_NODELIST": "iris-169"}


def until(condition: Callable[[], Any], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


@dataclass
class Job:
    """A run whose agents a test starts; what they need of Ray is in the run's own code folder."""

    run: RunDir
    temp_dir: Path
    agents: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def stand_in(self) -> Path:
        return self.run.code / "ray/scripts"

    def ray_does(self, body: str) -> None:
        self.stand_in.mkdir(parents=True)
        (self.stand_in.parent / "__init__.py").write_text(RAY)
        (self.stand_in / "__init__.py").touch()
        (self.stand_in / "scripts.py").write_text(SCRIPTS + body)
        services = self.stand_in.parent / "_private/services.py"
        services.parent.mkdir(exist_ok=True)
        services.write_text("RAY_PATH = ''\nstart_ray_process = None\n")

    def starts(self) -> list[dict[str, str]]:
        """Return the options of each ``ray start`` so far."""
        lines = (self.stand_in / "starts").read_text().splitlines()
        return [dict(word.removeprefix("--").partition("=")[::2] for word in line.split()[2:]) for line in lines]

    def agent(self, rank: int, *options: str, **environment: str) -> subprocess.Popen[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        place = SLURM | {"SLURM_PROCID": str(rank), "SLURMD_NODENAME": f"iris-{169 + rank}"} | environment
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "hpc_tune.runtime.node",
                str(self.run.path),
                f"--temp-dir={self.temp_dir}",
                *options,
            ],
            env=clean | place,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.agents.append(process)
        return process

    def attempt(self, head: str | None = None, job_id: str = "4711") -> Attempt:
        """Make the attempt as the agent of rank 0 would, with a head at an address."""
        attempt = self.run.new_attempt()
        attempt.begin(AttemptRecord("slurm", "iris-169", 4, 0, nodes=2, job=SlurmJob(job_id)))
        if head is not None:
            Head(head, "iris-169", time.time()).write(attempt.head_file)
        return attempt

    def nothing_is_left(self, attempt: Attempt) -> bool:
        return not list(self.temp_dir.iterdir()) and not bearers(attempt)


def bearers(attempt: Attempt) -> list[str]:
    mark = os.fsencode(f"{MARK}={attempt.path}")
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0") and is_alive(int(entry.name)):
                found.append(entry.name)
        except OSError:
            continue
    return found


@pytest.fixture
def job(project: Any, runs_dir: Path) -> Iterator[Job]:
    run = project.create_run(runs_dir)
    run.jobs_dir.mkdir()
    temp_dir = Path(tempfile.mkdtemp(prefix="t"))
    made = Job(run, temp_dir)
    try:
        yield made
    finally:
        for process in made.agents:
            process.kill()
            process.communicate()
        for attempt in run.attempts():
            end_marked(str(attempt.path))
        shutil.rmtree(temp_dir, ignore_errors=True)  # a guardian may be at it, too


@pytest.fixture
def head_address() -> Iterator[str]:
    """An address where somebody answers, as the head of Ray does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def ended(agent: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = agent.communicate(timeout=30)
    return agent.returncode, output


def node(attempt: Attempt, name: str = "iris-170") -> NodeRecord:
    record = NodeRecord.read(attempt.node_file(name))
    assert record is not None
    return record


def is_up(attempt: Attempt, name: str = "iris-170") -> Callable[[], bool]:
    return lambda: (record := NodeRecord.read(attempt.node_file(name))) is not None and record.state == "up"


# ------------------------------------------------------------------------------- workers


def test_a_worker_joins_stays_and_leaves_nothing(job: Job, head_address: str) -> None:
    job.ray_does(STAY)
    attempt = job.attempt(head_address)
    agent = job.agent(1)
    assert until(is_up(attempt))
    record = node(attempt)
    assert (record.rank, record.cpus, record.address, record.reason) == (1, 4, "127.0.0.1", "")
    (start,) = job.starts()
    assert start["address"] == head_address
    private = Path(start["temp-dir"])
    assert private.parent == job.temp_dir
    assert private.stat().st_mode & 0o777 == 0o700
    attempt.end(Outcome("completed", "all trials have ended"))
    code, output = ended(agent)
    assert code == 0
    assert "iris-170: joined after" in output
    assert node(attempt).state == "ended"
    assert node(attempt).up == record.up  # it did join
    assert job.nothing_is_left(attempt)
    assert "Ray runtime started." in attempt.node_log("iris-170").read_text()


def test_a_worker_may_come_before_the_head(job: Job, head_address: str) -> None:
    job.ray_does(STAY)
    agent = job.agent(1)
    job.attempt("127.0.0.1:1", job_id="4000")  # another job's: not this one
    attempt = job.attempt()
    assert until(lambda: NodeRecord.read(attempt.node_file("iris-170")) is not None)
    assert node(attempt).state == "starting"
    Head(head_address, "iris-169", time.time()).write(attempt.head_file)
    assert until(is_up(attempt))
    attempt.end(Outcome("completed", "all trials have ended"))
    assert ended(agent)[0] == 0


def test_a_requeued_job_waits_for_its_own_attempt(job: Job, head_address: str) -> None:
    job.ray_does(STAY)
    job.attempt(head_address)
    agent = job.agent(1, "--start-timeout=0.2", SLURM_RESTART_COUNT="1")
    code, output = ended(agent)
    assert code == 1
    assert "the head node's agent has made no attempt in " in output


def test_ports_that_are_taken_are_not_tried_again(job: Job, head_address: str) -> None:
    job.ray_does(TAKEN_ONCE)
    attempt = job.attempt(head_address)
    agent = job.agent(1)
    assert until(is_up(attempt))
    first, second = job.starts()
    ports = [
        {value for name, value in start.items() if name.endswith("port") and value != "0"} for start in (first, second)
    ]
    assert len(ports[0]) == len(ports[1]) == 3
    assert not ports[0] & ports[1]
    attempt.end(Outcome("completed", "all trials have ended"))
    code, output = ended(agent)
    assert code == 0
    assert "Ray ended at its start (1 of 3): OSError: [Errno 98] Address already in use" in output


def test_a_worker_that_never_starts_says_why_and_keeps_rays_logs(job: Job, head_address: str) -> None:
    write_log = (
        "    logs = Path(option('temp-dir'), 'session_2026-11-22/logs'); logs.mkdir(parents=True, exist_ok=True)\n"
        "    (logs / 'raylet.err').write_text('no luck')\n"
    )
    job.ray_does(write_log + TAKEN)
    attempt = job.attempt(head_address)
    code, _ = ended(job.agent(1))
    assert code == 1
    assert len(job.starts()) == 3
    assert node(attempt).state == "failed"
    assert node(attempt).reason == "Ray did not start: OSError: [Errno 98] Address already in use"
    assert (attempt.nodes_dir / "iris-170/raylet.err").read_text() == "no luck"
    assert attempt.outcome() is None  # the search goes on without it
    assert job.nothing_is_left(attempt)


@pytest.mark.parametrize(
    ("body", "head", "reason"),
    [
        (STAY, "127.0.0.1:1", "the head did not answer within"),
        ("    time.sleep(100)\n", None, "Ray has not joined after"),
    ],
    ids=["no head", "hanging"],
)
def test_a_deadline(job: Job, head_address: str, body: str, head: str | None, reason: str) -> None:
    job.ray_does(body)
    attempt = job.attempt(head or head_address)
    code, _ = ended(job.agent(1, "--start-timeout=1"))
    assert code == 1
    assert node(attempt).state == "failed"
    assert node(attempt).reason.startswith(reason)
    assert job.nothing_is_left(attempt)


def test_a_worker_that_is_joining_leaves_when_the_attempt_is_over(job: Job, head_address: str) -> None:
    job.ray_does("    time.sleep(100)\n")
    attempt = job.attempt(head_address)
    agent = job.agent(1)
    assert until((job.stand_in / "starts").exists)
    attempt.end(Outcome("completed", "all trials have ended"))
    assert ended(agent)[0] == 0
    assert node(attempt).state == "ended"
    assert job.nothing_is_left(attempt)


def test_a_worker_whose_ray_ends_has_failed(job: Job, head_address: str) -> None:
    job.ray_does(
        "    started()\n    while not (HERE / 'end').exists(): time.sleep(0.01)\n    raise OSError('disk gone')\n"
    )
    attempt = job.attempt(head_address)
    agent = job.agent(1)
    assert until(is_up(attempt))
    (job.stand_in / "end").touch()
    assert ended(agent)[0] == 1
    assert node(attempt).state == "failed"
    assert node(attempt).reason == "Ray ended: OSError: disk gone"
    assert node(attempt).up is not None
    assert attempt.outcome() is None
    assert job.nothing_is_left(attempt)


def test_an_attempt_that_is_over_needs_no_worker(job: Job) -> None:
    job.ray_does(STAY)
    attempt = job.attempt()
    attempt.end(Outcome("failed", "the head of Ray did not start"))
    assert ended(job.agent(1))[0] == 0
    assert node(attempt).state == "ended"
    assert not (job.stand_in / "starts").exists()
    assert job.nothing_is_left(attempt)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=["term", "int", "kill"])
def test_however_an_agent_ends_nothing_of_its_attempt_is_left(
    job: Job, head_address: str, number: signal.Signals
) -> None:
    job.ray_does(STAY)
    attempt, other = job.attempt(head_address), job.run.path / "attempts/999"
    bystander = subprocess.Popen(["sleep", "100"], env=os.environ | {MARK: str(other)})
    try:
        agent = job.agent(1)
        assert until(is_up(attempt))
        agent.send_signal(number)
        code, _ = ended(agent)
        assert until(lambda: job.nothing_is_left(attempt))
        if number != signal.SIGKILL:
            assert code == 0
            assert node(attempt).state == "ended"
        assert bystander.poll() is None  # another attempt's
    finally:
        bystander.kill()
        bystander.wait()


def test_the_trials_of_a_node_are_told_that_the_end_is_near(job: Job, head_address: str) -> None:
    """Trials look at a file of their own node as often as they like; the shared file system is asked by one process."""
    job.ray_does(f"    (HERE / 'stop').write_text(os.environ[{STOP_FILE!r}])\n{STAY}")
    attempt = job.attempt(head_address)
    agent = job.agent(1)
    assert until(is_up(attempt))
    stop = Path((job.stand_in / "stop").read_text())
    assert stop.is_relative_to(job.temp_dir)
    assert not stop.exists()
    job.run.stop_marker("4711", 0).touch()
    assert until(stop.exists)
    assert agent.poll() is None  # until the driver has saved
    attempt.end(Outcome("interrupted", "the walltime is near"))
    assert ended(agent)[0] == 0


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def in_process(job: Job, attempt: Attempt, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> WorkerAgent:
    environment = SLURM | {"SLURM_PROCID": "1", "SLURMD_NODENAME": "iris-170"}
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "4")
    given: dict[str, Any] = {
        "run": job.run, "temp_dir": job.temp_dir, "interface": None, "min_nodes": 1, "start_timeout": 5.0,
        "retry_errors": False, "patience": 1.0, "job_start": time.time(),
    }  # fmt: skip
    return WorkerAgent(NodeSettings(**given | changes), Place.from_environment(environment), attempt)


def test_a_full_disk_is_named(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = job.attempt()
    agent = in_process(job, attempt, monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**30, 2**30 - 5 * 2**20, 5 * 2**20))
    assert agent.serve() == 1
    assert node(attempt).reason == f"{job.temp_dir} has 5 MB free; Ray needs 100 MB"


def test_a_temporary_directory_that_is_missing(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = job.attempt()
    agent = in_process(job, attempt, monkeypatch, temp_dir=Path("/nowhere/tmp"))
    assert agent.serve() == 1
    assert node(attempt).state == "failed"
    assert node(attempt).reason == "no temporary directory can be made in /nowhere/tmp: No such file or directory"


# ------------------------------------------------------------------------------- the head


def test_two_agents_form_a_cluster(job: Job) -> None:
    job.ray_does(SERVE)
    begun = time.time()
    agents = [job.agent(rank, f"--job-start={begun - 2}", "--min-nodes=2", "--interface=lo") for rank in (0, 1)]
    assert [ended(agent)[0] for agent in agents] == [0, 0]
    (attempt,) = job.run.attempts()
    head = Head.read(attempt.head_file)
    (start,) = (each for each in job.starts() if "port" in each)
    assert head is not None
    assert (head.address, head.node) == (f"127.0.0.1:{start['port']}", "iris-169")
    assert start["node-ip-address"] == "127.0.0.1"
    record = attempt.record()
    assert record is not None
    assert (record.nodes, record.min_nodes, record.host, record.cpus) == (2, 2, "iris-169", 4)
    assert record.started == begun - 2
    assert record.job == SlurmJob("4711", nodes=("iris-169", "iris-170"))
    assert begun <= record.phases["gcs_up"] <= time.time()
    assert attempt.token_file.stat().st_mode & 0o777 == 0o600
    outcome = attempt.outcome()  # the driver's own: it came as far as joining
    assert outcome is not None
    assert (outcome.ending, outcome.reason) == ("failed", f"ValueError: joined {head.address}")
    assert [each.state for each in attempt.nodes()] == ["ended", "ended"]
    assert job.nothing_is_left(attempt)


@pytest.mark.parametrize(
    ("options", "body", "reason"),
    [
        (
            ["--interface=nope0"],
            SERVE,
            "the network interface 'nope0' has no IPv4 address: No such device; this node has lo",
        ),
        (["--interface=lo"], TAKEN, "the head of Ray did not start: OSError: [Errno 98] Address already in use"),
        (["--interface=lo", "--start-timeout=1"], "    time.sleep(100)\n", "the head of Ray does not answer after "),
        (["--temp-dir=/nowhere"], SERVE, "no temporary directory can be made in /nowhere: No such file or directory"),
    ],
    ids=["interface", "ports", "hanging", "temp dir"],
)
def test_a_head_that_fails_ends_the_attempt_with_the_reason(
    job: Job, options: list[str], body: str, reason: str
) -> None:
    job.ray_does(body)
    code, output = ended(job.agent(0, *options, **ALONE))
    assert code == 1
    (attempt,) = job.run.attempts()
    assert node(attempt, "iris-169").state == "failed"
    assert node(attempt, "iris-169").reason.startswith(reason)
    outcome = attempt.outcome()
    assert outcome is not None
    assert (outcome.ending, outcome.exit_code) == ("failed", 1)
    assert outcome.reason.startswith(f"iris-169: {reason}")
    assert outcome.hint == f"see {attempt.node_log('iris-169')}"
    assert f"iris-169: {reason}" in output
    assert job.nothing_is_left(attempt)


def test_a_head_tries_other_ports(job: Job) -> None:
    job.ray_does(f"    if start < 3: print('OSError: taken'); sys.exit(1)\n{SERVE}")
    assert ended(job.agent(0, "--interface=lo", **ALONE))[0] == 0
    starts = job.starts()
    assert len({start["port"] for start in starts}) == len(starts) == 3


def test_slurm_ends_the_job_of_a_head(job: Job) -> None:
    """The driver hangs in user code: the attempt is interrupted, not failed, and nobody waits for it for long."""
    job.ray_does(SERVE)
    (job.stand_in.parent / "__init__.py").write_text("import time\ndef init(**given): time.sleep(100)\n")
    agent = job.agent(0, "--interface=lo", **ALONE)
    assert until(lambda: [attempt for attempt in job.run.attempts() if is_up(attempt, "iris-169")()])
    (attempt,) = job.run.attempts()
    agent.terminate()
    assert ended(agent)[0] == 0
    outcome = attempt.outcome()
    assert outcome is not None
    assert (outcome.ending, outcome.cause) == ("interrupted", "terminated")
    assert job.nothing_is_left(attempt)


# ------------------------------------------------------------------------------- outside of Slurm


def test_an_agent_outside_of_slurm_says_so(job: Job) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    command = [sys.executable, "-m", "hpc_tune.runtime.node", str(job.run.path)]
    done = subprocess.run(command, env=clean, capture_output=True, text=True)
    assert done.returncode == 4
    assert "SLURM_JOB_ID is not set: a node agent runs as a task of a Slurm job step" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert job.run.attempts() == []


# ------------------------------------------------------------------------------- the environment of Ray


def test_nothing_of_the_users_environment_leads_ray_elsewhere(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path / "attempts/001")
    proxies = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
    base = {name: "http://proxy:3128" for lower in proxies for name in (lower, lower.upper())}
    base |= {"RAY_ADDRESS": "auto", "RAY_AUTH_TOKEN": "old", "RAY_AUTH_MODE": "disabled", "HOME": "/home/ada"}
    base |= {
        "RAY_AUTH_TOKEN_PATH": "/home/ada/.ray/auth_token",
        "RAY_USAGE_STATS_ENABLED": "1",
        "no_proxy": "localhost",
    }
    found = attempt_environment(base, attempt, Path("/runs/a/code"), stop_file=Path("/tmp/x/stop"))
    assert not [name for name in found if name.lower() in proxies]
    assert not {"RAY_ADDRESS", "RAY_AUTH_TOKEN"} & set(found)
    assert found["RAY_AUTH_MODE"] == "token"
    assert found["RAY_AUTH_TOKEN_PATH"] == str(attempt.token_file)
    assert found["RAY_USAGE_STATS_ENABLED"] == "0"
    assert found[MARK] == str(attempt.path)
    assert found[STOP_FILE] == "/tmp/x/stop"
    assert (found["HOME"], found["no_proxy"]) == ("/home/ada", "localhost")
    assert base["RAY_ADDRESS"] == "auto"  # a copy


@pytest.mark.parametrize(
    ("before", "after"), [(None, "/runs/a/code"), ("", "/runs/a/code"), ("/lib", "/runs/a/code:/lib")]
)
def test_the_snapshot_of_the_code_is_found_first(before: str | None, after: str, tmp_path: Path) -> None:
    base = {} if before is None else {"PYTHONPATH": before}
    found = attempt_environment(base, Attempt(tmp_path / "001"), Path("/runs/a/code"), stop_file=Path("/tmp/x/stop"))
    assert found["PYTHONPATH"] == after
