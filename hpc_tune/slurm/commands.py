"""Slurm's commands as pairs of pure functions: the argv that asks, and what its text says.

Only options are used that Slurm has had for long, and separators of our own: ``--json`` changes between versions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hpc_tune.slurm.states import JobState, reason_sentence

__all__ = [
    "ClusterConfig",
    "JobInfo",
    "NodeGroup",
    "PartitionInfo",
    "config_argv",
    "nodes_argv",
    "parse_config",
    "parse_nodes",
    "parse_partitions",
    "parse_sacct",
    "parse_squeue",
    "parse_submit",
    "partitions_argv",
    "requeue_argv",
    "sacct_argv",
    "scancel_argv",
    "seconds",
    "squeue_argv",
    "srun_argv",
    "submit_argv",
]

SEPARATOR = "|"
"""None of the fields that are asked for holds one, save the last."""


@dataclass(frozen=True)
class JobInfo:
    """What Slurm knows of one job. Times are seconds since the epoch, lengths seconds; None where it does not say."""

    job_id: str
    state: JobState = JobState.UNKNOWN
    reason: str = ""
    """Why it waits or ended, as a sentence; empty when there is nothing to say."""
    partition: str = ""
    nodes: int | None = None
    """How many nodes it has, or asks for while it waits."""
    node_list: str = ""
    """The nodes as Slurm abbreviates them: ``iris-[169-172]``."""
    submitted: float | None = None
    start: float | None = None
    """When it started; for a waiting job, when Slurm expects it to."""
    end: float | None = None
    """When it ended, or will at the latest."""
    time_limit: float | None = None
    time_left: float | None = None
    elapsed: float | None = None


@dataclass(frozen=True)
class ClusterConfig:
    """What matters to us of a cluster's configuration."""

    cluster_name: str
    version: str = ""
    preempts_by_partition: bool = False


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of one partition that are equal."""

    partition: str
    nodes: int
    cpus: int
    memory: int
    """In MB."""
    gpus: int = 0
    gpu_types: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class PartitionInfo:
    """A partition's limits; None where there is none."""

    name: str
    is_default: bool = False
    is_up: bool = True
    nodes: int | None = None
    max_nodes: int | None = None
    max_time: float | None = None
    default_time: float | None = None
    qos: tuple[str, ...] = ()
    """Those that it takes; empty: all."""
    tier: int = 1
    preempt_mode: str = ""


def submit_argv(script: Path, *, dependency: str | None = None, extra: Sequence[str] = ()) -> list[str]:
    """Ask for a job; what it needs is in the script's directives."""
    options = [] if dependency is None else [f"--dependency={dependency}"]
    return ["sbatch", "--parsable", *options, *extra, str(script)]


def parse_submit(text: str) -> tuple[str, str] | None:
    """Return the job's id, and the cluster where sbatch names it; a site's wrapper may have said more before."""
    for line in reversed(text.splitlines()):
        if found := re.fullmatch(r"(\d+)(?:;(\S+))?", line.strip()):
            return found[1], found[2] or ""
    return None


_SQUEUE = "%i|%T|%P|%D|%N|%V|%S|%e|%l|%L|%M|%r"


def squeue_argv(ids: Iterable[str]) -> list[str]:
    """Ask for jobs, those included that have ended a little while ago."""
    return ["squeue", "--noheader", "--states=all", f"--jobs={','.join(ids)}", f"--format={_SQUEUE}"]


def parse_squeue(text: str) -> Iterator[JobInfo]:
    """Yield what squeue listed."""
    for fields in _rows(text, 12):
        job_id, state, partition, nodes, node_list, submitted, start, end, limit, left, elapsed, reason = fields
        parsed = JobState.parse(state)
        yield JobInfo(
            job_id,
            parsed,
            reason_sentence(reason, parsed),
            partition,
            _int(nodes),
            node_list,
            _time(submitted),
            _time(start),
            _time(end),
            time_limit=seconds(limit),
            time_left=seconds(left),
            elapsed=seconds(elapsed),
        )


_SACCT = "JobID,State,Partition,NNodes,NodeList,Submit,Start,End,Timelimit,Elapsed"


def sacct_argv(ids: Iterable[str]) -> list[str]:
    """Ask the accounting for jobs, without their steps."""
    options = ["--noheader", "--allocations", "--parsable2", f"--delimiter={SEPARATOR}", f"--format={_SACCT}"]
    return ["sacct", *options, f"--jobs={','.join(ids)}"]


def parse_sacct(text: str) -> Iterator[JobInfo]:
    """Yield what the accounting has on record."""
    for job_id, state, partition, nodes, node_list, submitted, start, end, limit, elapsed in _rows(text, 10):
        yield JobInfo(
            job_id,
            JobState.parse(state),
            partition=partition,
            nodes=_int(nodes),
            node_list="" if node_list.startswith("None") else node_list,
            submitted=_time(submitted),
            start=_time(start),
            end=_time(end),
            time_limit=seconds(limit),
            elapsed=seconds(elapsed),
        )


def scancel_argv(ids: Iterable[str], *, signal: str | None = None) -> list[str]:
    """End jobs, or send a signal to the batch scripts of those that run.

    Every other process of a step would die of the signal; about a waiting job scancel would ask again for minutes.
    """
    return ["scancel", *([] if signal is None else ["--batch", "--state=RUNNING", f"--signal={signal}"]), *ids]


def requeue_argv(job_id: str) -> list[str]:
    """Have a running job start again from its first line, under its own id."""
    return ["scontrol", "requeue", job_id]


def srun_argv(options: Mapping[str, str | None], command: Sequence[str]) -> list[str]:
    """Run a command on one node, in a job of its own; options that are None are left to Slurm."""
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return ["srun", "--nodes=1", "--ntasks=1", "--input=none", *given, *command]


def config_argv() -> list[str]:
    """Ask for the cluster's configuration."""
    return ["scontrol", "show", "config"]


def parse_config(text: str) -> ClusterConfig:
    """Pick what matters to us out of ``Key = value`` lines.

    Raises:
        ValueError: if the cluster's name is not among them.
    """
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    values = {key.strip(): value.strip() for key, value in pairs}
    if not values.get("ClusterName"):
        raise ValueError("no ClusterName in the configuration")
    return ClusterConfig(
        cluster_name=values["ClusterName"],
        version=values.get("SLURM_VERSION", ""),
        preempts_by_partition=values.get("PreemptType") == "preempt/partition_prio",
    )


def partitions_argv() -> list[str]:
    """Ask for the limits of the partitions that this user sees."""
    return ["scontrol", "show", "partition", "--oneliner"]


def parse_partitions(text: str) -> list[PartitionInfo]:
    """Return the partitions in the order of Slurm's answer."""
    lines = (dict(word.split("=", 1) for word in line.split() if "=" in word) for line in text.splitlines())
    return [_partition(values) for values in lines if "PartitionName" in values]


def _partition(values: Mapping[str, str]) -> PartitionInfo:
    qos = values.get("AllowQos", "ALL")
    return PartitionInfo(
        name=values["PartitionName"],
        is_default=values.get("Default") == "YES",
        is_up=values.get("State", "UP") == "UP",
        nodes=_int(values.get("TotalNodes", "")),
        max_nodes=_int(values.get("MaxNodes", "")),
        max_time=seconds(values.get("MaxTime", "")),
        default_time=seconds(values.get("DefaultTime", "")),
        qos=() if qos in ("ALL", "(null)") else tuple(qos.split(",")),
        tier=_int(values.get("PriorityTier", "")) or 1,
        preempt_mode=values.get("PreemptMode", ""),
    )


def nodes_argv() -> list[str]:
    """Ask for the kinds of nodes of each partition: one line each, however many nodes there are."""
    return ["sinfo", "--noheader", "--exact", "--format=%R|%D|%c|%m|%G|%f"]


def parse_nodes(text: str) -> list[NodeGroup]:
    """Return the kinds of nodes."""
    groups = []
    for partition, nodes, cpus, memory, gres, features in _rows(text, 6):
        gpus = re.findall(r"gpu:(?:([^:,(]+):)?(\d+)", gres)
        groups.append(NodeGroup(
            partition, _int(nodes) or 0, _int(cpus) or 0, _int(memory) or 0,
            gpus=sum(int(count) for _, count in gpus),
            gpu_types=tuple(kind for kind, _ in gpus if kind),
            features=() if features == "(null)" else tuple(features.split(",")),
        ))  # fmt: skip
    return groups


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    """Yield the lines that have all columns; a banner or a warning among them has not."""
    for line in text.splitlines():
        fields = line.split(SEPARATOR, columns - 1)
        if len(fields) == columns:
            yield [field.strip() for field in fields]


def _int(text: str) -> int | None:
    found = re.match(r"\d+", text)  # "28+" stands for at least 28
    return int(found[0]) if found else None


def _time(text: str) -> float | None:
    """Return seconds since the epoch; Slurm's commands print local time."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").astimezone().timestamp()
    except ValueError:
        return None


def seconds(text: str) -> float | None:
    """Return the seconds of ``[days-]hours:minutes:seconds`` or ``minutes:seconds``; None for UNLIMITED and others."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)(?:\.\d+)?", text)
    if found is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return float(days * 86400 + hours * 3600 + minutes * 60 + rest)
