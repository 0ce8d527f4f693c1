"""Further sbatch directives: which a user may add, and what to use instead of those that are ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hpc_tune.errors import Fault
from hpc_tune.experiment.keys import how_to_set

__all__ = ["OWNED", "directive_faults", "long_name"]


def _use(key: str) -> str:
    return f"use allocation.{key} ({how_to_set(key)})"


_TASKS = "is not needed: one task runs on each node; trials share it by trial.cpus and trial.gpus"
_GPUS = f"is derived from the nodes' GPUs; {_use('gpus_per_node')}"
_MEMORY = f"is derived from the nodes' memory; {_use('memory')}"
_LOGS = "is where hpc-tune looks for the job's log; see: hpc-tune logs"
_ENVIRONMENT = "would change what the job sees of its environment; use [environment] of a site profile"
_NO_JOB = "would keep sbatch from sending exactly one job, or from saying which"

OWNED: Mapping[str, str] = {
    "account": _use("account"),
    "array": _NO_JOB,
    "chdir": "is the run directory's business; trials find their files relative to the snapshot of the code",
    "clusters": "is not supported; submit on a login node of that cluster",
    "constraint": _use("constraint"),
    "core-spec": _TASKS,
    "cpus-per-gpu": f"is derived; {_use('cpus_per_node')}",
    "cpus-per-task": _use("cpus_per_node"),
    "error": _LOGS,
    "exclude": _use("exclude"),
    "export": _ENVIRONMENT,
    "export-file": _ENVIRONMENT,
    "get-user-env": _ENVIRONMENT,
    "gpu-bind": "would hide GPUs from Ray, which hands them out itself",
    "gpus": _GPUS,
    "gpus-per-node": _use("gpus_per_node"),
    "gpus-per-socket": _GPUS,
    "gpus-per-task": _GPUS,
    "gres": _use("gpus_per_node"),
    "help": _NO_JOB,
    "ignore-pbs": "does not matter in a script of hpc-tune",
    "input": "is not read by anything in the job",
    "job-name": "is the run's name, by which hpc-tune finds the job",
    "mem": _use("memory"),
    "mem-per-cpu": _MEMORY,
    "mem-per-gpu": _MEMORY,
    "no-kill": "is set already: a search goes on when one of its nodes fails",
    "no-requeue": "would keep the search from being continued; see next_attempt of a site profile",
    "nodes": _use("nodes"),
    "ntasks": _TASKS,
    "ntasks-per-core": _TASKS,
    "ntasks-per-gpu": _TASKS,
    "ntasks-per-node": _TASKS,
    "ntasks-per-socket": _TASKS,
    "open-mode": _LOGS,
    "output": _LOGS,
    "parsable": _NO_JOB,
    "partition": _use("partition"),
    "qos": _use("qos"),
    "quiet": _NO_JOB,
    "requeue": "is set already where the site allows it; see next_attempt of a site profile",
    "signal": f"is how Slurm announces the walltime; {_use('grace')}",
    "test-only": f"{_NO_JOB}; use --dry-run",
    "time": _use("time"),
    "time-min": f"would let Slurm shorten the walltime; {_use('time')}",
    "usage": _NO_JOB,
    "verbose": _NO_JOB,
    "version": _NO_JOB,
    "wait": _NO_JOB,
    "wrap": _NO_JOB,
}
"""Directives that hpc_tune sets itself, or that would break a job of its own, each with what to do instead."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def long_name(key: str) -> str:
    """Return a key of an ``sbatch`` table as sbatch spells it: hyphens, no dashes in front."""
    return key.strip().lstrip("-").replace("_", "-").lower()


def directive_faults(written: Mapping[str, str | int | bool], key: str) -> list[Fault]:
    """Return why directives cannot be passed to sbatch, by their keys below ``key``."""
    found = ((name, _fault(long_name(name), value, f"{key}.{name}")) for name, value in written.items())
    return [fault for _, fault in found if fault is not None]


def _fault(name: str, value: str | int | bool, key: str) -> Fault | None:
    if not _NAME.fullmatch(name) or len(name) == 1:
        return Fault(key, "is not a long option of sbatch", 'write for example reservation = "course"')
    if name in OWNED:
        return Fault(key, f"--{name} {_reason(name)}")
    # sbatch takes any beginning of a long option for the whole
    if whole := next((owned for owned in OWNED if owned.startswith(name)), None):
        return Fault(key, f"--{name} is short for --{whole}, which {_reason(whole)}")
    if isinstance(value, str) and not value.isprintable():
        return Fault(key, f"expected printable text on one line, got {value!r}")
    return None


def _reason(name: str) -> str:
    advice = OWNED[name]
    return f"is set by hpc-tune; {advice}" if advice.startswith("use ") else advice
