"""``hpc-tune submit`` on a real Slurm, from a project's folder to its tables."""

from __future__ import annotations

import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hpc_tune_slurm.sandbox import Sandbox

from tests.sandbox.login import Login, Submitted, leftovers, read_table

pytestmark = pytest.mark.slurm

NODES = ["iris-169", "iris-170", "iris-171", "iris-172"]
GPUS = 2
SLOTS = len(NODES) * GPUS

MEETING = """\
import os, time
from pathlib import Path
from ray import tune

def train(config):
    begun = time.time()
    meeting = Path(config["meeting"])
    meeting.mkdir(exist_ok=True)
    (meeting / tune.get_context().get_trial_id()).touch()
    deadline = time.monotonic() + 120
    while len(list(meeting.iterdir())) < config["size"] and time.monotonic() < deadline:
        time.sleep(0.05)
    tune.report({
        "score": config["x"],
        "host": os.uname().nodename,
        "gpus": os.environ["CUDA_VISIBLE_DEVICES"],
        "begun": begun,
        "over": time.time(),
    })
"""
"""A trial waits until as many are at work as the nodes have GPUs, so that they must be at work at the same time."""
RUNS_DIR = "my 'runs' of \"100 %j\" $(touch injected); `id` & more"
"""A name that a shell, sbatch and srun would each take for something else, if it were not quoted for each."""


@dataclass(frozen=True)
class Finished:
    """A search that is over."""

    submitted: Submitted
    status: dict[str, Any]
    project: Path
    dry_run: str
    unchanged: bool
    """Whether the dry run left the file system and Slurm's queue as they were."""

    def table(self, name: str) -> list[dict[str, str]]:
        return read_table(self.submitted.run.path, name)


@contextmanager
def listening(sandbox: Sandbox, node: str, *ports: int) -> Iterator[None]:
    """Take ports on a node, as somebody else's Ray does."""
    program = f"""
import os, socket, time
taken = [socket.create_server(("0.0.0.0", port)) for port in {ports}]
print(os.getpid(), flush=True)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
os.dup2(1, 2)
time.sleep(600)
"""
    start = ["bash", "-c", 'setsid "$@" &', "bash", sys.executable, "-c", program]
    pid = sandbox.exec(node, start).stdout.strip()
    try:
        yield
    finally:
        sandbox.exec(node, ["kill", pid])


def surroundings(login: Login) -> tuple[list[Path], str]:
    """Return what a submission changes: files, and the queue."""
    return sorted(login.home.rglob("*")), login.call(["squeue", "--noheader"]).stdout


@pytest.fixture(scope="module")
def finished(user: Login, ray_sandbox: Sandbox) -> Finished:
    """A search over four nodes, in the surroundings that break other people's scripts."""
    meeting = user.home / "meeting"
    space = {"x": {"uniform": [0, 1]}, "meeting": str(meeting), "size": SLOTS}
    project = user.project(MEETING, {"num_samples": SLOTS + 4, "space": space, "trial": {"cpus": 1, "gpus": 1}})
    stale = user.home / ".ray/auth_token"
    stale.parent.mkdir()
    stale.write_text("0" * 64)
    proxies = dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9"
    )
    arguments = ("--nodes=4", f"--gpus-per-node={GPUS}", f"--runs-dir={project / RUNS_DIR}")
    with listening(ray_sandbox, NODES[0], 6379, 8265), listening(ray_sandbox, NODES[1], 6379, 8265):
        before = surroundings(user)
        dry_run = user.hpc_tune("submit", "--dry-run", *arguments, cwd=project, env=proxies).stdout
        unchanged = surroundings(user) == before
        submitted = user.submit(project, *arguments, env=proxies)
        status = submitted.wait()
    return Finished(submitted, status, project, dry_run, unchanged)


def test_submit_runs_the_search_of_the_project_to_its_tables(finished: Finished) -> None:
    assert finished.status["state"] == "completed", finished.submitted.logs()
    trials, history = finished.table("trials"), finished.table("history")
    assert [row["status"] for row in trials] == ["TERMINATED"] * (SLOTS + 4)
    assert {row["trial_id"] for row in history} == {row["trial_id"] for row in trials}
    best = max(trials, key=lambda row: float(row["score"]))
    (summary,) = finished.table("summary")
    assert (summary["best_trial"], summary["terminated"]) == (best["trial_id"], str(SLOTS + 4))


def test_trials_run_on_all_nodes_at_once_each_with_its_own_gpus(finished: Finished) -> None:
    by_node = defaultdict(list)
    for row in finished.table("trials"):
        by_node[row["host"]].append((float(row["begun"]), float(row["over"]), row["gpus"].split(",")))
    assert sorted(by_node) == NODES
    for node, trials in by_node.items():
        together = [
            (first, second)
            for first, second in combinations(trials, 2)
            if first[0] < second[1] and second[0] < first[1]
        ]
        assert together, f"no two trials were at work at the same time on {node}"
        assert all(len(gpus) == 1 and int(gpus[0]) < GPUS for _, _, gpus in trials), f"GPUs of others on {node}"
        assert all(not set(first[2]) & set(second[2]) for first, second in together), f"{node}: {trials}"


def test_phases_of_the_start_are_on_record_and_shown(finished: Finished) -> None:
    record = finished.submitted.run.attempts()[0].record()
    assert record is not None
    assert set(record.phases) == {"gcs_up", "nodes_up", "driver_up", "first_trial", "first_result"}
    shown = finished.status["phases_seconds"]
    assert list(shown) == sorted(shown, key=shown.__getitem__)
    assert {f"{node} up" for node in NODES} | record.phases.keys() == shown.keys()
    assert shown["nodes_up"] == max(shown[f"{node} up"] for node in NODES) > shown["gcs_up"] > 0
    human = finished.submitted.login.hpc_tune("status", finished.submitted.run.path).stdout
    assert "all nodes up" in human
    assert "4 of 4 joined" in human


def test_nothing_of_an_attempt_is_left_on_any_node(finished: Finished) -> None:
    for node in NODES:
        assert leftovers(finished.submitted.login.sandbox, node) == []


def test_what_others_might_read_is_closed_to_them(finished: Finished) -> None:
    run = finished.submitted.run
    assert run.path.stat().st_mode & 0o777 == 0o700
    assert run.attempts()[0].token_file.stat().st_mode & 0o777 == 0o600


def test_a_dry_run_prints_the_script_that_is_sent_and_changes_nothing(finished: Finished) -> None:
    stamp = re.compile(r"project-\d{8}-\d{6}")
    assert stamp.sub("RUN", finished.dry_run) == stamp.sub("RUN", finished.submitted.run.job_script.read_text())
    assert finished.unchanged


def test_a_run_directory_of_any_name_is_only_a_name(finished: Finished) -> None:
    assert finished.submitted.run.path.parent == finished.project / RUNS_DIR
    assert finished.submitted.run.job_log(finished.submitted.job_id).stat().st_size
    assert not list(finished.submitted.login.home.rglob("injected"))


FASHION_MNIST = Path(__file__).parents[2] / "experiments/fashion_mnist"


def test_fashion_mnist_runs_to_its_tables_on_four_nodes(user: Login) -> None:
    changes = ("num_samples=4", "space.epochs=2", "trial_scheduler.max_t=2", "trial_scheduler.grace_period=1")
    small = [word for change in changes for word in ("--set", change)]
    project = user.home / "fashion"
    project.mkdir()
    submitted = user.submit(project, FASHION_MNIST / "asha.toml", "--nodes=4", "--gpus-per-node=1", *small)
    assert submitted.wait()["state"] == "completed", submitted.logs()
    trials = read_table(submitted.run.path, "trials")
    assert [row["status"] for row in trials] == ["TERMINATED"] * 4
    assert max(float(row["mean_accuracy"]) for row in trials) > 50
    assert len({row["node"] for row in trials}) > 1


def test_without_sbatch_submit_says_what_else_there_is(user: Login, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "env"):
        (programs / name).symlink_to(shutil.which(name) or name)
    project = user.project("def train(config): ...", {"space": {}, "num_samples": 1}, name="unsent")
    done = user.hpc_tune("submit", "--nodes=2", cwd=project, env={"PATH": str(programs)}, exit_code=4)
    assert "sbatch" in done.stderr
    assert "hpc-tune run" in done.stderr
    assert "--dry-run" in done.stderr
    assert sorted(each.name for each in project.iterdir()) == ["pyproject.toml", "search.json", "train.py"]
    dry_run = user.hpc_tune("submit", "--nodes=2", "--dry-run", cwd=project, env={"PATH": str(programs)})
    assert dry_run.stdout.startswith("#!/bin/bash\n")


COUNTING = """\
import tempfile, time
from pathlib import Path
from ray import tune

def train(config):
    begin, checkpoint = 0, tune.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            begin = int(Path(folder, "count").read_text())
    for count in range(begin + 1, 601):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "count").write_text(str(count))
            tune.report({"score": count, "began_at": begin}, checkpoint=tune.Checkpoint.from_directory(folder))
        if Path(config["open"]).exists() and count > begin:
            return
        time.sleep(0.1)
"""
"""Counts until somebody opens the gate, a minute at most."""


@pytest.fixture(scope="module")
def cancelled(user: Login) -> tuple[Submitted, str, str]:
    """A search that was cancelled after a second job script of it had begun; what the commands said."""
    space = {"open": str(user.home / "open")}
    project = user.project(COUNTING, {"space": space, "trial": {"cpus": 1}, "checkpoint": {"keep": 2}}, name="counting")
    submitted = user.submit(project, "--nodes=1", "--cpus-per-node=1")
    submitted.until(lambda: submitted.status()["best"], "a first result")
    second = Submitted(user, submitted.run, by_hand(submitted))
    second.wait()
    meanwhile = submitted.status()
    assert (meanwhile["state"], len(meanwhile["attempts"])) == ("running", 1), submitted.logs()
    said = user.hpc_tune("cancel", submitted.run.path).stdout
    submitted.wait()
    return submitted, second.run.job_log(second.job_id).read_text(), said


def by_hand(submitted: Submitted) -> str:
    """Send a run's job script as its owner would without us; return the job's id."""
    login = submitted.login
    return login.call(["sbatch", "--parsable", submitted.run.job_script], cwd=login.home).stdout.strip()


def test_a_second_job_of_a_live_run_does_nothing_and_says_so(cancelled: tuple[Submitted, str, str]) -> None:
    _, said, _ = cancelled
    assert re.search(r"counting-\S+ is live: process \d+ on iris-169 is at work in it; job \d+ has nothing to do", said)
    assert "Traceback" not in said


def test_a_cancelled_search_has_saved_and_can_be_resumed(cancelled: tuple[Submitted, str, str]) -> None:
    submitted, _, said = cancelled
    status = submitted.status()
    assert status["state"] == "cancelled"
    assert status["next"] == [f"hpc-tune resume {submitted.run.path}"]
    assert "hpc-tune resume" in said
    assert status["trials"]["interrupted"] == 1
    assert list(submitted.run.storage.glob("*/checkpoint_*"))
    assert leftovers(submitted.login.sandbox, "iris-169") == []


def test_a_job_script_sent_by_hand_goes_on_where_the_run_was(cancelled: tuple[Submitted, str, str]) -> None:
    submitted, *_ = cancelled
    (submitted.login.home / "open").touch()
    again = Submitted(submitted.login, submitted.run, by_hand(submitted))
    status = again.wait()
    assert (status["state"], len(status["attempts"])) == ("completed", 2), again.logs()
    (trial,) = read_table(submitted.run.path, "trials")
    assert int(trial["began_at"]) > 0
    assert int(trial["score"]) > int(trial["began_at"])
