"""The one place that runs Slurm's commands."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpc_tune.errors import SlurmError
from hpc_tune.slurm import commands, refusals
from hpc_tune.slurm.commands import ClusterConfig, JobInfo, NodeGroup, PartitionInfo

__all__ = ["Slurm"]

_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
"""Where Slurm is, and who we are; every other variable of Slurm's would change what is asked, or leak into a job."""
_DROPPED = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SCONTROL_")
_GONE = "Invalid job id specified"
_FORGOTTEN = "Slurm no longer lists the job"


@dataclass(frozen=True)
class Slurm:
    """Slurm as its commands offer it. Each method costs a fixed number of calls, whatever the number of nodes.

    Every method that talks to Slurm raises SlurmError when a command is missing, refuses, or does not answer in time.
    """

    timeout: float = 30.0
    """Seconds that a question may take; slurmctld that is down is noticed after some ten."""
    submit_timeout: float = 120.0
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def is_installed(self) -> bool:
        """Whether this machine has the command that submits jobs."""
        return self.has("sbatch")

    def submit(self, script: Path, *, dependency: str | None = None, extra: Sequence[str] = ()) -> tuple[str, str]:
        """Send a job script; return the job's id, and the cluster's name where sbatch says it (else empty).

        Only the script's directives and ``extra`` count: variables such as SBATCH_PARTITION, which would beat the
        script, and those of a job that submits another one, stay outside.
        """
        argv = commands.submit_argv(script, dependency=dependency, extra=extra)
        text = self._ask(argv, self.submit_timeout).stdout
        if (submitted := commands.parse_submit(text)) is None:
            raise refusals.silent("sbatch", text)
        return submitted

    def jobs(self, ids: Iterable[str]) -> dict[str, JobInfo]:
        """Return what is known of the jobs, each id included: one squeue, one sacct for the forgotten.

        A job of which nobody knows is UNKNOWN, with the reason why.
        """
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return {}
        found = {info.job_id: info for info in self._listed(wanted)}
        forgotten = [each for each in wanted if each not in found]
        if forgotten:
            found |= self._accounted(forgotten)
        return {each: found[each] for each in wanted}

    def _listed(self, ids: Sequence[str]) -> Iterator[JobInfo]:
        try:
            answer = self._ask(commands.squeue_argv(ids), self.timeout)
        except SlurmError as error:
            if _GONE in error.message:  # what squeue says when it was asked for one job alone
                return iter(())
            raise
        return commands.parse_squeue(answer.stdout)

    def _accounted(self, ids: Sequence[str]) -> dict[str, JobInfo]:
        """Return what the accounting knows; many sites have none, which is no error."""
        try:
            answer = self._ask(commands.sacct_argv(ids), self.timeout).stdout
            known = {info.job_id: info for info in commands.parse_sacct(answer)}
            reason = f"{_FORGOTTEN}, and its accounting does not know it"
        except SlurmError as error:
            known, reason = {}, f"{_FORGOTTEN}, and its accounting does not answer ({error.message})"
        return {each: known.get(each) or JobInfo(each, reason=reason) for each in ids}

    def cancel(self, ids: Iterable[str], *, signal: str | None = None) -> None:
        """End jobs, or send a signal to the batch scripts of those that run; jobs that are gone are no error."""
        if not (wanted := list(ids)):
            return
        argv = commands.scancel_argv(wanted, signal=signal)
        answer = self._run(argv, self.timeout)
        complaints = [line for line in answer.stderr.splitlines() if _GONE not in line]
        if answer.returncode and complaints:
            raise refusals.refused("scancel", "\n".join(complaints))

    def requeue(self, job_id: str) -> None:
        """Have a running job start again; its processes are ended soon after."""
        self._ask(commands.requeue_argv(job_id), self.timeout)

    def run_on_node(self, command: Sequence[str], options: Mapping[str, str | None], *, patience: float) -> str:
        """Run a command on a node and return what it printed.

        Args:
            command: the command.
            options: of srun, by their long names.
            patience: seconds to wait for a node, and as long again for the command.
        """
        wanted = {**options, "immediate": str(max(1, int(patience)))}
        return self._ask(commands.srun_argv(wanted, command), 2 * patience).stdout

    def has(self, command: str) -> bool:
        """Tell whether this machine has one of Slurm's commands."""
        return shutil.which(command, path=self.environ.get("PATH")) is not None

    def config(self) -> ClusterConfig:
        """Return what matters to us of the cluster's configuration."""
        text = self._ask(commands.config_argv(), self.timeout).stdout
        try:
            return commands.parse_config(text)
        except ValueError as error:
            raise refusals.silent("scontrol show config", text) from error

    def partitions(self) -> list[tuple[PartitionInfo, list[NodeGroup]]]:
        """Return the partitions that this user sees, each with its kinds of nodes. Two calls."""
        limits = commands.parse_partitions(self._ask(commands.partitions_argv(), self.timeout).stdout)
        nodes = commands.parse_nodes(self._ask(commands.nodes_argv(), self.timeout).stdout)
        return [(each, [group for group in nodes if group.partition == each.name]) for each in limits]

    def _ask(self, argv: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        answer = self._run(argv, timeout)
        if answer.returncode:
            raise refusals.refused(argv[0], answer.stderr or answer.stdout)
        return answer

    def _run(self, argv: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                argv, capture_output=True, text=True, errors="replace", timeout=timeout, check=False,
                stdin=subprocess.DEVNULL, env=self.environment(),
            )  # fmt: skip
        except (FileNotFoundError, PermissionError):
            raise refusals.missing(argv[0]) from None
        except subprocess.TimeoutExpired:
            raise refusals.slow(argv[0], timeout) from None

    def environment(self) -> dict[str, str]:
        """Return the environment in which Slurm's commands ask what they are told to, and nothing else."""
        kept = {name: value for name, value in self.environ.items() if name in _KEPT or not name.startswith(_DROPPED)}
        return kept | {"SLURM_TIME_FORMAT": "standard"}
