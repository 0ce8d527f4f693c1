"""Slurm's words for states and reasons."""

from __future__ import annotations

import re

import pytest

from hpc_tune.slurm.states import JobState, reason_sentence


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("PENDING", JobState.PENDING),
        ("RUNNING", JobState.RUNNING),
        ("CANCELLED by 1000", JobState.CANCELLED),
        ("CANCELLED+", JobState.CANCELLED),
        ("OUT_OF_ME+", JobState.OUT_OF_MEMORY),
        ("NODE_FAIL", JobState.NODE_FAIL),
        ("completing", JobState.COMPLETING),
        ("SPECIAL_EXIT", JobState.SPECIAL_EXIT),
        ("NEW_IN_2031", JobState.UNKNOWN),
        ("+", JobState.UNKNOWN),
        ("", JobState.UNKNOWN),
    ],
)
def test_a_word_becomes_a_state(text: str, state: JobState) -> None:
    assert JobState.parse(text) is state


def test_every_state_is_final_or_live_or_unknown() -> None:
    for state in JobState:
        assert state.is_final + state.is_live + (state is JobState.UNKNOWN) == 1
        assert not (state.is_pending and state.is_final)
    assert {state.value for state in JobState if state.is_final} == {
        "COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "PREEMPTED", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL",
        "DEADLINE", "LAUNCH_FAILED", "REVOKED",
    }  # fmt: skip


def test_what_is_unknown_is_never_an_end() -> None:
    assert not JobState.UNKNOWN.is_final
    assert not JobState.UNKNOWN.is_live


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("Resources", "next in line"),
        ("Priority", "higher priority"),
        ("(JobHeldUser)", "scontrol release"),
        ("Dependency", "another job"),
        ("BeginTime", "earliest start"),
        ("PartitionTimeLimit", r"allocation\.time.*never start"),
        ("PartitionConfig", r"allocation\.nodes, allocation\.time"),
        ("ReqNodeNotAvail, UnavailableNodes:iris-169", r"down, drained or reserved.*\(UnavailableNodes:iris-169\)"),
        ("QOSMaxJobsPerUserLimit", "its QOS lets you have no more running jobs at once"),
        ("QOSMaxSubmitJobPerUserLimit", "its QOS lets you have no more jobs at once"),
        ("QOSMaxMemoryPerUser", "its QOS lets you have no more memory at once"),
        ("MaxGRESPerAccount", "its account lets you have no more GPUs at once"),
        ("QOSGrpNodeLimit", "all jobs of its QOS together use as much as it allows: nodes"),
        ("AssocGrpGRES", "all jobs of its account together use as much as it allows: GPUs"),
        ("QOSMaxNodePerJobLimit", r"more nodes per job than its QOS allows \(allocation\.nodes\).*never start"),
        ("QOSMaxWallDurationPerJobLimit", r"more walltime than its QOS allows \(allocation\.time\)"),
        ("QOSMaxCpuPerNode", "more CPUs per node"),
        ("QOSMinGRES", r"less GPUs per job than its QOS allows \(allocation\.gpus_per_node\)"),
        ("QOSMinCpuNotSatisfied", "less CPUs per job"),
        ("AssocGrpCPUMinutesLimit", "its account has used up its time on CPUs"),
        ("AssocGrpCPURunMinutesLimit", "its account has used up its time on CPUs"),
        ("AssocGrpWallLimit", "its account has used up its time$"),
        ("AssocMaxUnknownPerJob", "more a resource per job"),
    ],
)
def test_a_reason_becomes_a_sentence(code: str, words: str) -> None:
    assert re.search(words, reason_sentence(code))


@pytest.mark.parametrize("code", ["None", "", "N/A", "(None)"])
def test_no_reason_is_no_sentence(code: str) -> None:
    assert reason_sentence(code) == ""


def test_an_unknown_reason_is_shown_as_slurm_says_it() -> None:
    assert reason_sentence("QOSUsageThreshold") == "QOSUsageThreshold"
    long = "(Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions)"
    assert reason_sentence(long) == long[1:-1]


def test_why_a_job_waited_is_forgotten_when_it_runs_or_is_over() -> None:
    assert reason_sentence("JobHeldUser", JobState.CANCELLED) == ""
    assert reason_sentence("Priority", JobState.RUNNING) == ""
    assert reason_sentence("NonZeroExitCode", JobState.FAILED) == "it ended with a non-zero exit code"
    assert reason_sentence("BeginTime", JobState.REQUEUED).startswith("its earliest start")
