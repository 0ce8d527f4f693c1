"""What can happen to a search on a cluster, each at a random instant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpc_tune.chain import lost_nodes
from tests.fault.field import Field, Lane

__all__ = ["SCENARIOS", "Scenario"]


@dataclass(frozen=True)
class Scenario:
    """A fault and how a search lives through it."""

    fault: str
    happens: Callable[[Lane], None]

    def play(self, field: Field) -> None:
        with field.lane(self.fault) as lane:
            self.happens(lane)


SCENARIOS: list[Scenario] = []


def scenario(fault: str) -> Callable[[Callable[[Lane], None]], Callable[[Lane], None]]:
    """Make a function a scenario; those that take longest come first."""

    def register(happens: Callable[[Lane], None]) -> Callable[[Lane], None]:
        SCENARIOS.append(Scenario(fault, happens))
        return happens

    return register


@contextmanager
def dead_node(lane: Lane, node: str) -> Iterator[None]:
    """Let a node fail; it is back for the next scenario."""
    lane.field.sandbox.kill_node(node)
    try:
        yield
    finally:
        lane.field.sandbox.heal_node(node)


@scenario("walltime")
def walltime(lane: Lane) -> None:
    """Slurm's own signal, at the end of an hour that lasts two minutes."""
    search = lane.search("grid", steps=60, seconds=0.5, arguments=["--time=2m", "--set", "allocation.grace=20"])
    search.wait_for_attempt(2)
    search.wait_for_end()
    attempts = len(search.run.attempts())
    search.judge("walltime", allowed=attempts - 1)


@scenario("node killed: the only one")
def only_node(lane: Lane) -> None:
    """Slurm itself queues the job again."""
    search = lane.search("random")
    search.at_random_instant()
    with dead_node(lane, lane.nodes[0]):
        search.wait_for_attempt(2)
        search.wait_for_end()
    assert len(search.run.submissions()) == 1
    search.judge("node killed: the only one", allowed=search.every)


@scenario("node killed: head")
def node_of_head(lane: Lane) -> None:
    """Slurm keeps what is left of the job; a worker ends it and sends the next one."""
    search = lane.search("asha", nodes=2)
    search.at_random_instant()
    with dead_node(lane, lane.nodes[0]):
        search.wait_for_attempt(2)
        search.wait_for_end()
    search.judge("node killed: head", allowed=search.every)


@scenario("node killed: worker; then walltime")
def node_of_worker(lane: Lane) -> None:
    search = lane.search("optuna", nodes=2)
    search.at_random_instant(latest=0.3)
    with dead_node(lane, lane.nodes[1]):
        search.at_random_instant(earliest=0.2, latest=0.5)
        search.signal_walltime()
        search.wait_for_attempt(2)
        search.wait_for_end()
        record = search.run.attempts()[-1].record()
        assert record is not None
        assert record.job is not None
        assert record.job.nodes == (lane.nodes[0], lane.nodes[2]), "the next attempt keeps off the lost node"
    assert f"without {lane.nodes[1]}" in search.job_logs()
    assert lost_nodes(search.run.attempts()[0]) == [lane.nodes[1]]
    search.judge("node killed: worker; then walltime", allowed=search.every + 1)


@scenario("walltime signal, twice")
def walltime_signal(lane: Lane) -> None:
    search = lane.search("asha", nodes=2, every=6, num_samples=16)
    for attempt in (1, 2):
        search.at_random_instant(latest=0.4)
        search.signal_walltime()
        search.wait_for_attempt(attempt + 1)
    search.wait_for_end()
    search.judge("walltime signal, twice", allowed=2)


@scenario("walltime signal")
def walltime_of_population(lane: Lane) -> None:
    search = lane.search("pbt", nodes=2, steps=24)
    search.at_random_instant()
    search.signal_walltime()
    search.wait_for_attempt(2)
    search.wait_for_end()
    search.judge("walltime signal", allowed=1)


@scenario("preempted")
def preempted(lane: Lane) -> None:
    search = lane.search("optuna", steps=24)  # Slurm takes its time to preempt
    search.at_random_instant()
    urgent = lane.slurm(
        "sbatch", "--parsable", "--partition=urgent", f"--nodelist={lane.nodes[0]}", "--exclusive", "--time=10",
        "--output=/dev/null", "--wrap=sleep 300",
    )  # fmt: skip
    try:
        search.wait(search.outcome, "the end of the preempted attempt")
    finally:
        lane.slurm("scancel", urgent)
    search.wait_for_attempt(2)
    search.wait_for_end()
    search.judge("preempted", allowed=search.every)


@scenario("driver killed, twice")
def driver(lane: Lane) -> None:
    search = lane.search("optuna")
    for attempt in (1, 2):
        search.at_random_instant(latest=0.4)
        lane.kill(lane.nodes[0], "hpc_tune.runtime.driver")
        search.wait_for_attempt(attempt + 1)
    search.wait_for_end()
    search.judge("driver killed, twice", allowed=2 * search.every)


@scenario("head's GCS killed")
def gcs(lane: Lane) -> None:
    search = lane.search("grid")
    search.at_random_instant()
    lane.kill(lane.nodes[0], "gcs_server")
    search.wait_for_attempt(2)
    search.wait_for_end()
    search.judge("head's GCS killed", allowed=search.every)


@scenario("worker's raylet killed")
def raylet(lane: Lane) -> None:
    search = lane.search("asha", nodes=2)
    search.at_random_instant(latest=0.4)
    lane.kill(lane.nodes[1], "raylet/raylet")
    search.wait_for_end()
    search.judge("worker's raylet killed", allowed=search.every)


@scenario("node agent killed: head")
def agent_of_head(lane: Lane) -> None:
    search = lane.search("pbt")
    search.at_random_instant()
    lane.kill(lane.nodes[0], "hpc_tune.runtime.node")
    search.wait_for_attempt(2)
    ended = search.run.attempts()[0].outcome()
    assert ended is not None
    assert (ended.cause, "agent was killed" in ended.reason) == ("node", True), ended
    search.wait_for_end()
    search.judge("node agent killed: head", allowed=search.every)


@scenario("node agent killed: worker")
def agent_of_worker(lane: Lane) -> None:
    search = lane.search("random", nodes=2)
    search.at_random_instant(latest=0.4)
    lane.kill(lane.nodes[1], "hpc_tune.runtime.node")
    search.wait_for_end()
    search.judge("node agent killed: worker", allowed=search.every)


@scenario("trial killed")
def trial(lane: Lane) -> None:
    search = lane.search("grid", trial={"cpus": 1, "max_failures": 1})
    search.at_random_instant()
    killed = search.ledger.last()
    lane.kill_pid(killed.node, killed.pid)
    search.wait_for_end()
    search.judge("trial killed", allowed=search.every)


@scenario("slurmctld restarted")
def slurmctld(lane: Lane) -> None:
    search = lane.search("pbt")
    search.at_random_instant(latest=0.4)
    lane.field.restart_slurmctld()
    search.wait_for_end()
    search.judge("slurmctld restarted", allowed=0)


@scenario("scancel, then resume")
def scancel(lane: Lane) -> None:
    search = lane.search("random")
    search.at_random_instant()
    search.scancel()
    search.resume()
    search.wait_for_end()
    search.judge("scancel, then resume", allowed=search.every)


@scenario("scancel, then two resumes at once")
def two_resumes(lane: Lane) -> None:
    search = lane.search("grid")
    search.at_random_instant()
    search.scancel()
    login = lane.field.login
    command = [login.python, "-m", "hpc_tune", "resume", search.run.path]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(login.call, [command, command])
    assert sorted([first.returncode, second.returncode]) == [0, 3], f"{first}\n{second}"
    search.wait_for_end()
    search.judge("scancel, then two resumes at once", allowed=search.every)
    assert len(search.run.attempts()) == 2


@scenario("checkpoint truncated")
def checkpoint(lane: Lane) -> None:
    search = lane.search("random")
    search.at_random_instant(latest=0.5)
    search.wait(lambda: 4 <= search.ledger.last().step <= 7, "a trial in the middle")
    search.note_finished()
    search.scancel()
    newest = search.newest_checkpoint()
    halve(newest / "state.json")
    search.resume()
    search.wait_for_end()
    search.judge("checkpoint truncated", allowed=2 * search.every)
    (row,) = (each for each in search.table("trials") if each["trial_id"] == newest.parent.name)
    assert newest.name in row["notes"]


@scenario("state of the search truncated")
def state(lane: Lane) -> None:
    search = lane.search("optuna")
    search.at_random_instant()
    search.scancel()
    halve(search.run.storage / "state.zip")
    search.resume()
    search.wait_for_end()
    search.judge("state of the search truncated", allowed=search.every)


def halve(path: Path) -> None:
    """Leave of a file what a full disk or a killed client of the file system leaves."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


@scenario("disk full")
def disk_full(lane: Lane) -> None:
    disk = lane.field.small_disk
    search = lane.search("grid", arguments=["--runs-dir", disk / "runs"])
    search.at_random_instant(latest=0.5)
    ballast = disk / "ballast"
    fill(ballast)
    outcome = search.wait_for_end("failed")
    assert outcome.reason == f"no space is left on {disk}, the file system of {search.run.path}"
    assert outcome.hint is not None
    assert outcome.hint.startswith(f"make room: {search.run.path.parent} holds {search.run.name} (")
    assert outcome.hint.endswith(f"; then: hpc-tune resume {search.run.path}")
    ballast.unlink()
    search.resume()
    search.wait_for_end()
    search.judge("disk full", allowed=search.every)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass


@scenario("max_attempts reached, then resume")
def max_attempts(lane: Lane) -> None:
    search = lane.search("grid", arguments=["--set", "allocation.max_attempts=2"])
    search.at_random_instant(latest=0.3)
    search.signal_walltime()
    search.wait_for_attempt(2)
    search.at_random_instant(latest=0.3)
    search.signal_walltime()
    search.wait_for_end("interrupted")
    assert "2 attempts have been made, and max_attempts is 2" in search.job_logs()
    search.resume()
    search.wait_for_end()
    search.judge("max_attempts reached, then resume", allowed=2)


HANGS = """\
import sys, time
def train(config):
    with open(config["ledger"], "a") as ledger:
        ledger.write("x 1 here 1\\n")
    time.sleep(600)
"""


@scenario("two attempts without a result")
def without_progress(lane: Lane) -> None:
    search = lane.search("grid", trainable=HANGS, arguments=["--set", "allocation.grace=3"])
    for attempt in (1, 2):
        search.wait_for_attempt(attempt)
        begun = search.ledger.count()
        search.wait(lambda begun=begun: search.ledger.grows(begun), "the first trial")  # type: ignore[misc]
        search.signal_walltime()
        search.wait(search.outcome, "the end of the attempt")
    search.wait_for_end("interrupted")
    assert len(search.run.attempts()) == 2
    assert "attempts 1 and 2 brought no new result" in search.job_logs()
    assert "driver.log: " in search.job_logs(), "the last words of the log"
