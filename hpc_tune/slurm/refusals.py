"""What Slurm's commands say when they refuse, as sentences that name the key to change.

The texts are those of Slurm's error table (``slurm_strerror``), which have hardly changed from 20.11 to 25.11.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hpc_tune.errors import SlurmError
from hpc_tune.experiment.keys import how_to_set
from hpc_tune.slurm.states import reason_sentence

__all__ = ["missing", "refused", "silent", "slow"]

_WITHOUT_SLURM = "run the search on this machine: hpc-tune run; or see the script: hpc-tune submit --dry-run"


_MAYBE_TAKEN = "it may have taken the job all the same; look with: squeue --me"
_NO_ANSWER = ("Socket timed out", "receive failure", "Zero Bytes were transmitted")
"""Slurm's words when a request was sent and nothing came back."""


def _set(key: str) -> str:
    return f"change allocation.{key} ({how_to_set(key)})"


_NODE = (
    "no node of the partition has what the job asks for; lower allocation.gpus_per_node, allocation.cpus_per_node or"
    " allocation.memory, or change allocation.partition or allocation.constraint"
)
_GPUS = f"{_set('gpus_per_node')}, or allocation.gpu_type; what nodes have: sinfo --format='%R %G'"
_HINTS: Mapping[str, str] = {
    "Invalid account": f"{_set('account')}; yours: sacctmgr show associations user=$USER format=account,partition,qos",
    "Invalid partition name": f"{_set('partition')}; what there is: sinfo --summarize",
    "No partition specified": _set("partition"),
    "group not permitted to use this partition": _set("partition"),
    "Required partition not available": f"the partition takes no jobs now; {_set('partition')}",
    "Requested partition configuration not available": _set("partition"),
    "Invalid qos": f"{_set('qos')}; yours: sacctmgr show associations user=$USER format=account,partition,qos",
    "Requested time limit is invalid": _set("time"),
    "Time limit specification required": _set("time"),
    "Invalid --time": _set("time"),
    "Node count specification invalid": _set("nodes"),
    "is not a valid node count": _set("nodes"),
    "More processors requested than permitted": f"{_set('nodes')}, or allocation.cpus_per_node",
    "CPU count": _set("cpus_per_node"),
    "Memory": _set("memory"),
    "Invalid --mem": _set("memory"),
    "generic resource (gres)": _GPUS,
    "Invalid GRES": _GPUS,
    "Trackable RESource": _set("gpus_per_node"),
    "Invalid feature": f"{_set('constraint')}; what nodes have: sinfo --format='%R %f'",
    "Invalid node name": _set("exclude"),
    "Requested nodes not in this partition": _set("partition"),
    "reservation": "change allocation.sbatch.reservation",
    "Invalid license": "change allocation.sbatch.licenses",
    "Requested node configuration is not available": _NODE,
    "unrecognized option": "take it out of allocation.sbatch, or of the site profile's [sbatch]",
    "QOS usage threshold": _set("qos"),
    "accounting/QOS policy": "ask for less (allocation.nodes, allocation.time), or change allocation.qos",
    "Unable to contact slurm controller": "slurmctld does not answer; try again in a few minutes, or ask the site",
    "s_p_parse_file": "this machine is no login node of a cluster, or $SLURM_CONF is wrong",
    "Could not establish a configuration source": "this machine is no login node of a cluster, or $SLURM_CONF is wrong",
    "ClusterName needs to be specified": "this machine is no login node of a cluster, or $SLURM_CONF is wrong",
    "Access/permission denied": "the site does not allow it here",
    "temporarily unable to accept job": "Slurm is too busy; try again in a minute",
}
"""Beginnings or parts of Slurm's words, the more special ones first where both could fit."""

_PREFIX = re.compile(
    r"^(?:(?:sbatch|squeue|sacct|scancel|scontrol|sinfo): )?(?:error: |fatal: )?(?:Batch job submission failed: )?"
)
_LIMIT_WORD = re.compile(r"(?:Assoc|QOS|Max)[A-Za-z]+")


def refused(command: str, stderr: str) -> SlurmError:
    """Return the error for a command that Slurm turned down."""
    said = [line for line in (_PREFIX.sub("", each).strip() for each in stderr.splitlines()) if line]
    said = [line for line in said if not line.startswith("Try ")]
    limits = [reason_sentence(line) for line in said if _LIMIT_WORD.fullmatch(line)]
    message = "; ".join(dict.fromkeys(said)) or "it gave no reason"
    if command == "sbatch" and any(words in message for words in _NO_ANSWER):
        return SlurmError(f"Slurm did not answer ({command}): {message}", hint=_MAYBE_TAKEN, outcome_unknown=True)
    hint = "; ".join(limits) or _hint(said)
    return SlurmError(f"Slurm refused ({command}): {message}", hint=hint)


def _hint(said: list[str]) -> str | None:
    found = (hint for part, hint in _HINTS.items() for line in said if part in line)
    return next(found, None)


def missing(command: str) -> SlurmError:
    """Return the error for a command that is not there."""
    return SlurmError(f"{command} is not on this machine: Slurm is missing", hint=_WITHOUT_SLURM)


def slow(command: str, limit: float) -> SlurmError:
    """Return the error for a command that did not end in time."""
    sent = command == "sbatch"
    hint = _MAYBE_TAKEN if sent else "try again in a few minutes"
    return SlurmError(f"{command} did not answer within {limit:.0f} s", hint=hint, outcome_unknown=sent)


def silent(command: str, text: str) -> SlurmError:
    """Return the error for an answer that makes no sense to us."""
    message = f"{command} ended well, but its answer is not understood: {text.strip()[:200]!r}"
    return SlurmError(message, outcome_unknown=command == "sbatch")
