"""Slurm's words for the state of a job and for why it waits, as an enum and as sentences.

State codes are those of squeue(1) and sacct(1), reasons those of "Job reason codes" in Slurm's documentation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

__all__ = ["JobState", "reason_sentence"]


class JobState(Enum):
    """What Slurm does with a job. A word that this version does not know is ``UNKNOWN``, never an end."""

    PENDING = "PENDING"
    CONFIGURING = "CONFIGURING"
    """It has its nodes, which are still being prepared."""
    RUNNING = "RUNNING"
    COMPLETING = "COMPLETING"
    """Its processes are being ended; how it ended is not yet known."""
    REQUEUED = "REQUEUED"
    REQUEUE_HOLD = "REQUEUE_HOLD"
    REQUEUE_FED = "REQUEUE_FED"
    RESV_DEL_HOLD = "RESV_DEL_HOLD"
    """Held, because its reservation was deleted."""
    SPECIAL_EXIT = "SPECIAL_EXIT"
    """Requeued and held, because it ended with an exit code that the site treats so."""
    SUSPENDED = "SUSPENDED"
    STOPPED = "STOPPED"
    RESIZING = "RESIZING"
    SIGNALING = "SIGNALING"
    STAGE_OUT = "STAGE_OUT"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    PREEMPTED = "PREEMPTED"
    NODE_FAIL = "NODE_FAIL"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    BOOT_FAIL = "BOOT_FAIL"
    DEADLINE = "DEADLINE"
    LAUNCH_FAILED = "LAUNCH_FAILED"
    REVOKED = "REVOKED"
    UNKNOWN = "UNKNOWN"

    @classmethod
    def parse(cls, text: str) -> JobState:
        """Return the state that squeue or sacct wrote, ``CANCELLED by 1000`` and ``OUT_OF_ME+`` included."""
        words = text.upper().split()
        if not words:
            return cls.UNKNOWN
        word = words[0].rstrip("+")  # sacct cuts what its column cannot hold
        if word == words[0]:
            return cls.__members__.get(word, cls.UNKNOWN)
        return next((state for name, state in cls.__members__.items() if word and name.startswith(word)), cls.UNKNOWN)

    @property
    def is_final(self) -> bool:
        """Whether the job will never run again."""
        return self in _FINAL

    @property
    def is_live(self) -> bool:
        """Whether the job waits, runs, or is about to end. What is unknown is neither live nor final."""
        return self is not JobState.UNKNOWN and not self.is_final

    @property
    def is_pending(self) -> bool:
        """Whether the job waits for nodes, for the first time or again."""
        return self in _PENDING


_FINAL = frozenset({
    JobState.COMPLETED, JobState.FAILED, JobState.TIMEOUT, JobState.CANCELLED, JobState.PREEMPTED, JobState.NODE_FAIL,
    JobState.OUT_OF_MEMORY, JobState.BOOT_FAIL, JobState.DEADLINE, JobState.LAUNCH_FAILED, JobState.REVOKED,
})  # fmt: skip
_PENDING = frozenset({
    JobState.PENDING, JobState.REQUEUED, JobState.REQUEUE_HOLD, JobState.REQUEUE_FED, JobState.RESV_DEL_HOLD,
    JobState.SPECIAL_EXIT,
})  # fmt: skip

_NEVER = "it will never start like this"
_SENTENCES: Mapping[str, str] = {
    "Priority": "jobs of higher priority come first",
    "Resources": "it is next in line and waits for nodes to become free",
    "Dependency": "it waits for another job to end",
    "DependencyNeverSatisfied": f"the job that it depends on ended otherwise than asked; {_NEVER}",
    "BeginTime": "its earliest start has not come yet; a requeued job waits so for a minute or two",
    "JobHeldUser": "its owner holds it back; release it with: scontrol release JOB",
    "JobHeldAdmin": "an administrator holds it back",
    "JobHoldMaxRequeue": "it was requeued as often as Slurm allows; release it with: scontrol release JOB",
    "JobArrayTaskLimit": "as many tasks of its array run as it allows",
    "Licenses": "it waits for a licence",
    "NodeDown": "a node that it needs is down",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition takes no jobs now",
    "PartitionNodeLimit": f"it asks for more nodes than its partition allows (allocation.nodes); {_NEVER}",
    "PartitionTimeLimit": f"it asks for more time than its partition allows (allocation.time); {_NEVER}",
    "PartitionConfig":
        f"it asks for more nodes or time than its partition has (allocation.nodes, allocation.time); {_NEVER}",
    "BadConstraints": f"no node meets its constraints (allocation.constraint); {_NEVER}",
    "Reservation": "it waits for its reservation to begin",
    "ReservationDeleted": f"its reservation was deleted; {_NEVER}",
    "ReqNodeNotAvail": "a node that it needs is down, drained or reserved; often for a maintenance",
    "Cleaning": "its last start is still being cleaned up",
    "Prolog": "its nodes are being prepared",
    "SchedDefer": "Slurm is too busy to look at it yet",
    "InvalidAccount": f"its account is not valid (allocation.account); {_NEVER}",
    "AccountNotAllowed": f"its partition does not take its account (allocation.account); {_NEVER}",
    "InvalidQOS": f"its QOS is not valid (allocation.qos); {_NEVER}",
    "QOSNotAllowed": f"its partition does not take its QOS (allocation.qos); {_NEVER}",
    "AssociationJobLimit": "its account has as many jobs as it may",
    "AssociationResourceLimit": "its account uses as much as it may",
    "AssociationTimeLimit": "its account has used up its time",
    "AccountingPolicy": "a limit of its account or QOS is reached",
    "MaxMemPerLimit": f"it asks for more memory than its partition allows (allocation.memory); {_NEVER}",
    "DeadLine": "it could not start before its deadline",
    "JobLaunchFailure": "it could not be started on its nodes",
    "NonZeroExitCode": "it ended with a non-zero exit code",
    "SystemFailure": "Slurm, the file system or a node failed",
    "TimeLimit": "its walltime was over",
    "InactiveLimit": "it was idle for too long",
    "OutOfMemory": "it used more memory than it asked for (allocation.memory)",
}  # fmt: skip

_REASONS_TO_END = frozenset({
    "DeadLine", "DependencyNeverSatisfied", "InactiveLimit", "JobLaunchFailure", "NodeDown", "NonZeroExitCode",
    "OutOfMemory", "SystemFailure", "TimeLimit",
})  # fmt: skip

_LIMIT = re.compile(
    r"(?P<who>Assoc|QOS|)(?P<kind>Grp|Max|Min)(?P<what>[A-Za-z]+?)(?P<time>(?:Run)?Minutes)?"
    r"(?P<per>Per(?:Job|Node|User|Account))?(?:Limit|NotSatisfied)?"
)
_WHAT: Mapping[str, tuple[str, str]] = {
    "cpu": ("CPUs", "cpus_per_node"), "mem": ("memory", "memory"), "memory": ("memory", "memory"),
    "node": ("nodes", "nodes"), "gres": ("GPUs", "gpus_per_node"), "jobs": ("running jobs", ""),
    "submitjob": ("jobs", ""), "submitjobs": ("jobs", ""), "wall": ("walltime", "time"),
    "wallduration": ("walltime", "time"), "license": ("licences", ""), "billing": ("billed units", ""),
    "energy": ("energy", ""), "bb": ("burst buffer", ""),
}  # fmt: skip


def reason_sentence(code: str, state: JobState = JobState.PENDING) -> str:
    """Return Slurm's reason as a sentence; empty where there is none, its own words where they are new to us.

    Slurm keeps the reason for which a job last waited: of one that is over, only a reason to end is one.
    """
    text = code.strip().removeprefix("(").removesuffix(")")
    word, _, rest = text.partition(",")
    if text in ("", "None", "N/A") or (not state.is_pending and word not in _REASONS_TO_END):
        return ""
    if word in _SENTENCES:
        return _SENTENCES[word] + (f" ({rest.strip()})" if rest.strip() else "")
    if found := _LIMIT.fullmatch(word):
        return _limit_sentence(found)
    return text


def _limit_sentence(found: re.Match[str]) -> str:
    """Say which limit of an association or QOS stands in the way: aggregates free up, a job's own size does not."""
    owner = {"Assoc": "its account", "QOS": "its QOS"}.get(found["who"], "its account")
    what, key = _WHAT.get(found["what"].lower(), ("a resource", ""))
    own_size = found["per"] in ("PerJob", "PerNode")
    if found["kind"] == "Min" or own_size:
        size = "less" if found["kind"] == "Min" else "more"
        unit = "" if what == "walltime" else {"PerNode": " per node"}.get(found["per"] or "", " per job")
        return f"it asks for {size} {what}{unit} than {owner} allows{f' (allocation.{key})' if key else ''}; {_NEVER}"
    if found["time"] or what == "walltime":
        return f"{owner} has used up its time" + ("" if what == "walltime" else f" on {what}")
    if found["kind"] == "Grp":
        return f"all jobs of {owner} together use as much as it allows: {what}"
    return f"{owner} lets you have no more {what} at once"
