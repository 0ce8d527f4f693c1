"""The contract of the Slurm client on a real Slurm, with and without accounting."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hpc_tune_slurm.sandbox import Sandbox, SandboxConfig
from hpc_tune_slurm.sandbox.waiting import wait_until

from hpc_tune.errors import SlurmError
from hpc_tune.slurm.client import Slurm
from hpc_tune.slurm.commands import JobInfo
from hpc_tune.slurm.states import JobState
from tests.sandbox.conftest import running

pytestmark = pytest.mark.slurm

SHORT_MEMORY = 2
"""Seconds after which squeue forgets a job: slurmctld looks for such jobs twice a minute, or when it is asked to."""


class Cluster:
    """A client of a sandbox, and the jobs that a test leaves behind."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        self.sandbox = sandbox
        self.folder = folder
        self.slurm = Slurm(environ={**os.environ, **sandbox.env()})
        self.submitted: list[str] = []

    def submit(self, *directives: str, command: str = "sleep 60") -> str:
        script = self.folder / "job.sbatch"
        lines = [f"#SBATCH {each}" for each in (*directives, f"--output={self.folder}/%j.log")]
        script.write_text("\n".join(["#!/bin/bash", *lines, command, ""]))
        job_id, cluster = self.slurm.submit(script)
        assert job_id.isdigit()
        assert cluster == ""
        self.submitted.append(job_id)
        return job_id

    def refusal(self, *directives: str) -> SlurmError:
        with pytest.raises(SlurmError) as caught:
            self.submit(*directives)
        return caught.value

    def job(self, job_id: str) -> JobInfo:
        return self.slurm.jobs([job_id])[job_id]

    def wait(self, job_id: str, *states: JobState) -> JobInfo:
        wait_until(lambda: self.job(job_id).state in states, f"{job_id} in one of {states}", 60)
        return self.job(job_id)

    def clear(self) -> None:
        self.slurm.cancel(self.submitted)
        self.sandbox.wait_idle()


@pytest.fixture
def cluster(slurm_sandbox: Sandbox, cluster_dir: Path) -> Iterator[Cluster]:
    """Four nodes of 28 CPUs and 4 GPUs, no accounting."""
    cluster = Cluster(slurm_sandbox, cluster_dir)
    yield cluster
    cluster.clear()


@pytest.fixture(params=["slurm_sandbox", "accounting_sandbox"])
def any_cluster(request: pytest.FixtureRequest, cluster_dir: Path) -> Iterator[Cluster]:
    """A cluster without accounting, and one with it: the client's contract is the same."""
    cluster = Cluster(request.getfixturevalue(request.param), cluster_dir)
    yield cluster
    cluster.clear()


@pytest.fixture(scope="module")
def forgetful_sandbox(new_state_dir: Callable[[str], Path]) -> Iterator[Sandbox]:
    """One node; its Slurm forgets jobs at once, has no accounting, and may be broken by a test."""
    config = SandboxConfig(state_dir=new_state_dir("forget"), nodes=1, cpus=2, gpus=0, min_job_age=SHORT_MEMORY)
    yield from running(config)


@pytest.fixture(scope="module")
def strict_sandbox(new_state_dir: Callable[[str], Path]) -> Iterator[Sandbox]:
    """One node; its Slurm has accounts and QOS with limits, and insists on them."""
    conf = ("AccountingStorageEnforce=associations,limits,qos",)
    config = SandboxConfig(state_dir=new_state_dir("strict"), nodes=1, cpus=4, gpus=0, accounting=True, extra_conf=conf)
    for sandbox in running(config):
        sacctmgr = ["sacctmgr", "--immediate", "--quiet"]
        for name, *limits in (
            ("short", "MaxWall=00:10:00", "MaxTRESPerJob=node=1", "Flags=DenyOnLimit"),
            ("few", "MaxJobsPerUser=1", "MaxSubmitJobsPerUser=2"),
            ("shared", "GrpTRES=cpu=1"),
        ):
            sandbox.run([*sacctmgr, "add", "qos", name, "set", *limits])
        sandbox.run([*sacctmgr, "modify", "user", "root", "set", "qos+=short,few,shared"])
        yield sandbox


def test_a_job_from_submission_to_its_end(any_cluster: Cluster) -> None:
    before = time.time()
    job_id = any_cluster.submit("--time=00:10:00", "--nodes=2", command="sleep 2")
    info = any_cluster.wait(job_id, JobState.RUNNING)
    assert (info.partition, info.nodes, info.time_limit) == ("gpu", 2, 600)
    assert info.node_list == "iris-[169-170]"
    assert info.start is not None
    assert before - 2 <= info.start <= time.time() + 1
    assert info.end == info.start + 600
    assert info.time_left is not None
    assert info.elapsed is not None
    assert 590 <= info.time_left + info.elapsed <= 600
    ended = any_cluster.wait(job_id, JobState.COMPLETED)
    assert ended.state.is_final
    assert ended.reason == ""


def test_ends_of_jobs(any_cluster: Cluster) -> None:
    failed = any_cluster.submit(command="exit 3")
    held = any_cluster.submit("--hold")
    started = any_cluster.submit()
    assert "non-zero exit code" in any_cluster.wait(failed, JobState.FAILED).reason
    any_cluster.wait(started, JobState.RUNNING)
    any_cluster.slurm.cancel([held, started, failed, "999999"])
    assert any_cluster.wait(held, JobState.CANCELLED).reason == ""
    assert any_cluster.wait(started, JobState.CANCELLED).reason == ""


def test_why_jobs_wait(cluster: Cluster) -> None:
    first = cluster.submit("--nodes=4", "--cpus-per-task=28")
    cluster.wait(first, JobState.RUNNING)
    waiting = {
        "next in line": cluster.submit("--nodes=4", "--cpus-per-task=28"),
        "holds it back": cluster.submit("--hold"),
        "earliest start": cluster.submit("--begin=now+1hour"),
        "another job": cluster.submit(f"--dependency=afterany:{first}"),
        "never start": cluster.submit("--nodes=9"),  # a Slurm with EnforcePartLimits=NO takes it
    }
    wait_until(lambda: all(words in cluster.job(job_id).reason for words, job_id in waiting.items()), "all reasons", 30)
    jobs = cluster.slurm.jobs([first, *waiting.values()])
    assert [info.state.is_pending for info in jobs.values()] == [False, *[True] * 5]


def test_a_successor_waits_for_the_job_before(cluster: Cluster) -> None:
    first = cluster.submit()
    script = cluster.folder / "job.sbatch"
    second, _ = cluster.slurm.submit(script, dependency=f"afterany:{first}")
    cluster.submitted.append(second)
    assert cluster.job(second).state is JobState.PENDING
    cluster.slurm.cancel([first])
    cluster.wait(second, JobState.RUNNING)


def test_a_signal_reaches_the_batch_script_and_no_waiting_job(cluster: Cluster) -> None:
    started = cluster.submit(command="trap 'echo heard; exit 0' USR1; echo ready; sleep 60 & wait")
    held = cluster.submit("--hold")
    log = cluster.folder / f"{started}.log"
    wait_until(lambda: log.exists() and "ready" in log.read_text(), "the trap", 30)
    begin = time.monotonic()
    cluster.slurm.cancel([started, held, "999999"], signal="USR1")
    assert time.monotonic() - begin < 10  # scancel alone asks again about a waiting job for minutes
    cluster.wait(started, JobState.COMPLETED)
    assert "heard" in log.read_text()
    assert cluster.job(held).state is JobState.PENDING


def test_variables_neither_change_a_job_nor_leak_into_it(cluster: Cluster) -> None:
    leaking = {"SBATCH_PARTITION": "urgent", "SLURM_RESTART_COUNT": "7", "SLURM_MEM_PER_NODE": "1", "OURS": "kept"}
    script = cluster.folder / "job.sbatch"
    log = cluster.folder / "out.log"
    script.write_text(f"#!/bin/bash\n#SBATCH --output={log}\necho $SLURM_JOB_PARTITION,$SLURM_RESTART_COUNT,$OURS\n")
    job_id, _ = Slurm(environ={**cluster.slurm.environ, **leaking}).submit(script)
    cluster.wait(job_id, JobState.COMPLETED)
    wait_until(lambda: log.exists() and log.read_text() != "", "the job's word", 30)
    assert log.read_text() == "gpu,,kept\n"


@pytest.mark.parametrize(
    ("directive", "message", "hint"),
    [
        ("--partition=nope", "invalid partition specified: nope", "allocation.partition (--partition)"),
        ("--gpus-per-node=9", "Requested node configuration is not available", "allocation.gpus_per_node"),
        ("--gres=gpu:a100:1", "Requested node configuration is not available", "allocation.gpus_per_node"),
        ("--gres=foo:1", "Invalid generic resource", "allocation.gpus_per_node"),
        ("--constraint=nope", "Invalid feature", "allocation.constraint (--constraint)"),
        ("--exclude=nope", "Invalid node name", "allocation.exclude (--exclude)"),
        ("--cpus-per-task=99", "CPU count per node can not be satisfied", "allocation.cpus_per_node"),
        ("--mem=900G", "Memory specification can not be satisfied", "allocation.memory (--memory)"),
        ("--time=soon", "Invalid --time specification", "allocation.time (--time)"),
        ("--reservation=x", "Requested reservation is invalid", "allocation.sbatch.reservation"),
        ("--licenses=foo:1", "Invalid license specification", "allocation.sbatch.licenses"),
        ("--frobnicate=1", "unrecognized option '--frobnicate=1'", "allocation.sbatch"),
    ],
)
def test_a_refusal_names_the_key(cluster: Cluster, directive: str, message: str, hint: str) -> None:
    error = cluster.refusal(directive)
    assert message in error.message
    assert hint in str(error.hint)
    assert error.exit_code == 4
    assert not error.outcome_unknown


def test_limits_of_the_partition_are_refused_where_slurm_enforces_them(cluster: Cluster) -> None:
    conf = Path(cluster.sandbox.env()["SLURM_CONF"])
    text = conf.read_text()
    try:
        conf.write_text(f"{text}\nEnforcePartLimits=ALL\n")
        cluster.sandbox.run(["scontrol", "reconfigure"])
        cluster.sandbox.run(["scontrol", "update", "PartitionName=gpu", "MaxNodes=3"])
        assert "allocation.nodes (--nodes)" in str(cluster.refusal("--nodes=4").hint)
        assert "allocation.time (--time)" in str(cluster.refusal("--time=5-00").hint)
        cluster.sandbox.run(["scontrol", "update", "PartitionName=gpu", "State=INACTIVE"])
        assert "takes no jobs now" in str(cluster.refusal().hint)
    finally:
        conf.write_text(text)
        cluster.sandbox.run(["scontrol", "reconfigure"])
        cluster.sandbox.run(["scontrol", "update", "PartitionName=gpu", "MaxNodes=UNLIMITED", "State=UP"])


def test_accounts_and_qos(strict_sandbox: Sandbox, cluster_dir: Path) -> None:
    cluster = Cluster(strict_sandbox, cluster_dir)
    assert "allocation.account (--account)" in str(cluster.refusal("--account=nope").hint)
    assert "allocation.qos (--qos)" in str(cluster.refusal("--qos=nope").hint)
    too_long = cluster.refusal("--qos=short")
    assert "more walltime than its QOS allows (allocation.time)" in str(too_long.hint)
    assert "QOSMaxWallDurationPerJobLimit; Job violates accounting/QOS policy" in too_long.message
    assert cluster.submit("--qos=few")
    second = cluster.submit("--qos=few")
    assert "lets you have no more jobs at once" in str(cluster.refusal("--qos=few").hint)
    shared = cluster.submit("--qos=shared", "--cpus-per-task=2")
    wait_until(lambda: "its QOS lets you have no more running jobs" in cluster.job(second).reason, "a reason", 30)
    wait_until(lambda: "all jobs of its QOS together" in cluster.job(shared).reason, "a reason", 30)
    cluster.clear()


def test_the_configuration(any_cluster: Cluster) -> None:
    config = any_cluster.slurm.config()
    assert config.cluster_name == "iris"
    assert re.match(r"\d+\.\d+", config.version)
    assert config.preempts_by_partition


def test_accounting_knows_what_squeue_has_forgotten(accounting_sandbox: Sandbox, cluster_dir: Path) -> None:
    cluster = Cluster(accounting_sandbox, cluster_dir)
    job_id = cluster.submit(command="exit 3")
    cluster.wait(job_id, JobState.FAILED)
    accounted: dict[str, JobInfo] = {}

    def is_accounted() -> bool:
        accounted.update(cluster.slurm._accounted([job_id, "999999"]))
        return accounted[job_id].state is JobState.FAILED

    wait_until(is_accounted, "the job's end in the accounting", 30)
    assert accounted[job_id].nodes == 1
    assert accounted[job_id].node_list == "iris-169"
    assert accounted["999999"].state is JobState.UNKNOWN
    assert "does not know it" in accounted["999999"].reason
    cluster.clear()


def test_a_vanished_job_is_unknown(forgetful_sandbox: Sandbox, cluster_dir: Path) -> None:
    cluster = Cluster(forgetful_sandbox, cluster_dir)
    job_id = cluster.submit(command="exit 0")
    vanished = "Slurm no longer lists the job, and its accounting does not answer"
    # each question is for this job alone, then for two: squeue answers them differently
    wait_until(lambda: cluster.job(job_id).state is JobState.UNKNOWN, "slurmctld forgets the job", 120)
    assert cluster.job(job_id).reason.startswith(vanished)
    both = cluster.slurm.jobs([job_id, "999999"])
    assert {info.state for info in both.values()} == {JobState.UNKNOWN}
    cluster.clear()


def test_a_controller_that_is_down_is_no_answer(forgetful_sandbox: Sandbox, cluster_dir: Path) -> None:
    """Comes last for its sandbox, whose controller it kills."""
    cluster = Cluster(forgetful_sandbox, cluster_dir)
    kill_controller(forgetful_sandbox)
    for action in (lambda: cluster.slurm.jobs(["1"]), cluster.submit):
        begin = time.monotonic()
        with pytest.raises(SlurmError) as caught:
            action()
        assert "Unable to contact slurm controller" in caught.value.message
        assert "slurmctld does not answer" in str(caught.value.hint)
        assert time.monotonic() - begin < cluster.slurm.timeout


def kill_controller(sandbox: Sandbox) -> None:
    """Kill slurmctld of this sandbox alone, by the process on its record."""
    state = Path(sandbox.env()["SLURM_CONF"]).parent
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            name = (entry / "comm").read_text().strip()
            environ = (entry / "environ").read_bytes()
        except OSError:
            continue
        if name == "slurmctld" and str(state).encode() in environ:
            os.kill(int(entry.name), signal.SIGKILL)
