"""Slurm's commands as text: what is asked, and answers pasted from a Slurm 22.05.8."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hpc_tune.slurm import commands
from hpc_tune.slurm.states import JobState

SQUEUE = """\
2|FAILED|gpu|1|iris-169|2026-11-24T05:50:17|2026-11-24T05:50:18|2026-11-24T05:50:18|2:00:00|2:00:00|0:00|NonZeroExitCode
3|PENDING|gpu|4||2026-11-24T05:50:18|2026-11-24T07:50:18|2026-11-24T09:50:18|2:00:00|2:00:00|0:00|Resources
6|PENDING|gpu|1||2026-11-24T05:50:18|N/A|N/A|2:00:00|2:00:00|0:00|Dependency
1|RUNNING|gpu|2|iris-[169-170]|2026-11-24T05:50:17|2026-11-24T05:50:18|2026-11-24T07:50:18|2:00:00|1:59:57|0:03|None
"""
SACCT = """\
1|CANCELLED by 0|gpu|2|iris-[169-170]|2026-11-24T05:50:17|2026-11-24T05:50:18|2026-11-24T05:50:21|02:00:00|00:00:03
3|CANCELLED by 0|gpu|4|None assigned|2026-11-24T05:50:18|2026-11-24T05:50:21|2026-11-24T05:50:21|02:00:00|00:00:00
20|PENDING|gpu|1|None assigned|2026-11-24T05:50:38|Unknown|Unknown|02:00:00|00:00:00
"""
CONFIG = """\
Configuration data as of 2026-11-24T05:46:51
AccountingStorageEnforce = associations,limits,qos
AccountingStorageType   = accounting_storage/slurmdbd
AuthInfo                = socket=/run/munge/munge.socket.2,cred_expire=15
ClusterName             = iris
JobRequeue              = 1
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at iris-controller is UP
"""
PARTITIONS = """\
PartitionName=gpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A DefaultTime=02:00:00 DisableRootJobs=NO ExclusiveUser=NO GraceTime=5 Hidden=NO MaxNodes=3 MaxTime=2-00:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=iris-[169-172] PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=REQUEUE State=UP TotalCPUs=112 TotalNodes=4 SelectTypeParameters=NONE JobDefaults=(null) DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED TRES=cpu=112,mem=250G,node=4,billing=112,gres/gpu=16
PartitionName=urgent AllowGroups=nogroup DenyAccounts=x AllowQos=normal,high AllocNodes=ALL Default=NO QoS=N/A DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=UNLIMITED MaxTime=UNLIMITED MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=iris-[169-172] PriorityJobFactor=1 PriorityTier=10 RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=OFF State=INACTIVE TotalCPUs=112 TotalNodes=4
"""  # noqa: E501


def local(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def test_squeue_tells_all_of_a_running_job() -> None:
    *_, job = commands.parse_squeue(SQUEUE)
    assert job == commands.JobInfo(
        "1", JobState.RUNNING, "", "gpu", 2, "iris-[169-170]",
        submitted=local("2026-11-24T05:50:17"), start=local("2026-11-24T05:50:18"), end=local("2026-11-24T07:50:18"),
        time_limit=7200, time_left=7197, elapsed=3,
    )  # fmt: skip


def test_squeue_tells_why_jobs_wait_and_ended() -> None:
    jobs = {job.job_id: job for job in commands.parse_squeue(SQUEUE)}
    assert list(jobs) == ["2", "3", "6", "1"]
    assert jobs["2"].reason == "it ended with a non-zero exit code"
    assert "next in line" in jobs["3"].reason
    assert jobs["3"].start == local("2026-11-24T07:50:18")
    assert jobs["6"].start is None
    assert jobs["3"].node_list == ""


def test_a_banner_among_the_lines_is_passed_over() -> None:
    assert [job.job_id for job in commands.parse_squeue(f"Welcome to iris!\n\n{SQUEUE}")] == ["2", "3", "6", "1"]
    assert list(commands.parse_squeue("")) == []


def test_a_reason_may_hold_the_separator() -> None:
    *_, line = SQUEUE.splitlines()
    (job,) = commands.parse_squeue(line.replace("RUNNING", "PENDING").replace("None", "a|b"))
    assert job.reason == "a|b"


def test_sacct_tells_how_jobs_ended() -> None:
    first, second, third = commands.parse_sacct(SACCT)
    assert (first.job_id, first.state, first.nodes) == ("1", JobState.CANCELLED, 2)
    assert (first.node_list, first.elapsed, first.time_limit) == ("iris-[169-170]", 3, 7200)
    assert second.node_list == ""
    assert (third.state, third.start, third.end) == (JobState.PENDING, None, None)


def test_all_jobs_are_asked_for_at_once() -> None:
    assert "--jobs=1,2,3" in commands.squeue_argv(["1", "2", "3"])
    assert "--jobs=1,2,3" in commands.sacct_argv(["1", "2", "3"])
    assert commands.scancel_argv(["1", "2"]) == ["scancel", "1", "2"]
    for argv in (commands.squeue_argv(["1"]), commands.sacct_argv(["1"]), commands.nodes_argv()):
        assert "--json" not in argv
        assert "--noheader" in argv


def test_a_signal_goes_to_the_batch_scripts_of_running_jobs_alone() -> None:
    assert commands.scancel_argv(["7"], signal="USR1") == [
        "scancel",
        "--batch",
        "--state=RUNNING",
        "--signal=USR1",
        "7",
    ]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("12\n", ("12", "")),
        ("12;iris\n", ("12", "iris")),
        ("Your project has 120 h left.\n12;iris\n", ("12", "iris")),
        ("", None),
        ("Submitted batch job 12\n", None),
    ],
)
def test_sbatch_answers_with_an_id(text: str, answer: tuple[str, str] | None) -> None:
    assert commands.parse_submit(text) == answer


def test_sbatch_is_asked_with_the_script_last() -> None:
    argv = commands.submit_argv(Path("/r/job.sbatch"), dependency="afterany:7", extra=["--begin=now"])
    assert argv == ["sbatch", "--parsable", "--dependency=afterany:7", "--begin=now", "/r/job.sbatch"]
    assert commands.submit_argv(Path("job.sbatch")) == ["sbatch", "--parsable", "job.sbatch"]


def test_the_configuration_is_read() -> None:
    config = commands.parse_config(CONFIG)
    assert config == commands.ClusterConfig("iris", "22.05.8", preempts_by_partition=True)
    with pytest.raises(ValueError, match="ClusterName"):
        commands.parse_config("nonsense")


def test_partitions_are_read() -> None:
    gpu, urgent = commands.parse_partitions(PARTITIONS)
    assert gpu == commands.PartitionInfo(
        "gpu", is_default=True, nodes=4, max_nodes=3, max_time=172800, default_time=7200, preempt_mode="REQUEUE"
    )
    assert (urgent.max_nodes, urgent.max_time, urgent.default_time) == (None, None, None)
    assert (urgent.qos, urgent.tier, urgent.is_up) == (("normal", "high"), 10, False)


@pytest.mark.parametrize(
    ("gres", "gpus", "types"),
    [
        ("gpu:volta:4", 4, ("volta",)),
        ("gpu:4", 4, ()),
        ("gpu:volta:4(S:0-1)", 4, ("volta",)),
        ("gpu:a100:2(S:0),gpu:h100:1(S:1),nvme:1", 3, ("a100", "h100")),
        ("gpu:4(S:0-1),shard:16", 4, ()),
        ("(null)", 0, ()),
    ],
)
def test_gpus_of_nodes_are_read(gres: str, gpus: int, types: tuple[str, ...]) -> None:
    (group,) = commands.parse_nodes(f"gpu|4|28|64000|{gres}|volta,volta16\n")
    assert (group.gpus, group.gpu_types) == (gpus, types)
    assert (group.partition, group.nodes, group.cpus, group.memory) == ("gpu", 4, 28, 64000)
    assert group.features == ("volta", "volta16")


def test_nodes_without_features() -> None:
    (group,) = commands.parse_nodes("batch|2|3+|128000+|(null)|(null)\n")
    assert (group.cpus, group.memory, group.features) == (3, 128000, ())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2:00:00", 7200),
        ("02:00:00", 7200),
        ("2-00:00:00", 172800),
        ("0:03", 3),
        ("15:07", 907),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("Partition_Limit", None),
        ("NOT_SET", None),
        ("", None),
    ],
)
def test_lengths_of_time(text: str, value: float | None) -> None:
    assert commands.seconds(text) == value
