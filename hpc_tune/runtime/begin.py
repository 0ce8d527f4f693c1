"""The beginning of an attempt in a Slurm job, by the node agent of rank 0."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from hpc_tune.attempt import Attempt, AttemptRecord, Outcome
from hpc_tune.chain import chain, reason_to_end
from hpc_tune.durable import write_text
from hpc_tune.errors import RunBusy, SlurmError
from hpc_tune.run import RunDir
from hpc_tune.runtime.agent import NodeSettings
from hpc_tune.runtime.granted import Place, Resources
from hpc_tune.slurm.client import Slurm
from hpc_tune.slurm.nodelist import expand_nodes

__all__ = ["begin_attempt"]


def begin_attempt(settings: NodeSettings, place: Place, environment: Mapping[str, str] = os.environ) -> Attempt:
    """Make the attempt of this job step; its record is what the other agents look for.

    An attempt may be over at once: when the run is complete, or when Slurm starts a job again and again.

    Raises:
        RunBusy: if another job's attempt is at work; this job makes none then.
    """
    run = settings.run
    _break_stale_claims(run, place.job.job_id)
    if (holder := run.lock.holder()) is not None:
        busy = RunBusy(f"{run.name} is live: {holder} is at work in it; job {place.job.job_id} has nothing to do")
        write_text(run.refusal_file(place.job), busy.message)
        raise busy
    resources = Resources.from_environment(environment)
    needless = _needless(settings, place)
    attempt = run.new_attempt()
    if needless is not None:
        attempt.end(needless)
    attempt.begin(
        AttemptRecord(
            kind="slurm",
            host=place.name,
            cpus=resources.cpus,
            gpus=resources.gpus,
            nodes=place.nodes,
            min_nodes=settings.min_nodes,
            retry_errors=settings.retry_errors and not chain(run),
            step=place.step,
            started=settings.job_start,
            job=replace(place.job, nodes=tuple(expand_nodes(place.node_list))),
        )
    )
    return attempt


def _needless(settings: NodeSettings, place: Place) -> Outcome | None:
    """Return the outcome of an attempt that has nothing to do, or does nothing but repeat the ones before it."""
    run = settings.run
    earlier = run.attempts()
    last = earlier[-1].outcome() if earlier else None
    if last is not None and last.ending == "completed" and not settings.retry_errors:
        return Outcome("completed", "nothing was left to do")
    if run.cancel_file(place.job.job_id).exists():  # others that wait for the job keep it
        return Outcome("interrupted", "it was cancelled before it began", exit_code=1, cause="cancelled")
    if not place.job.restart_count:
        return None
    why = reason_to_end(run, run.record()["spec"]["allocation"]["max_attempts"])
    return None if why is None else Outcome("failed", f"no further attempt starts by itself: {why}", exit_code=1)


def _break_stale_claims(run: RunDir, job_id: str) -> None:
    """Let go of the run for drivers that died on nodes where nobody can look any more: those of jobs that are over.

    Slurm is asked only where such a claim is left. While it is silent the claims stay, and the driver says who holds
    the run.
    """
    if not (hosts := run.lock.hosts()):
        return
    records = (record for attempt in run.attempts() if (record := attempt.record()) and record.host in hosts)
    holders = {record.host: record.job.job_id for record in records if record.job}  # the last attempt of each host
    jobs = set(holders.values()) - {job_id}
    try:
        known = Slurm().jobs(jobs) if jobs else {}
    except SlurmError:
        known = {}
    over = {job_id, *(each for each, info in known.items() if not info.state.is_live)}
    run.lock.break_claims({host for host, holder in holders.items() if holder in over})
