"""Follow-ups as jobs of their own, by submitit: on Slurm, or as a process of this machine."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_tune.attempt import Cancellation, Submission
from hpc_tune.errors import RunError, UsageError
from hpc_tune.experiment.spec import TrialResources
from hpc_tune.followup import Executor, FollowUp, FollowUpRecord, Kind
from hpc_tune.operations.facts import Jobs, Patient, ask
from hpc_tune.operations.followup_request import submitit_parameters
from hpc_tune.operations.followups import FollowUpFacts, FollowUpStatus, judge
from hpc_tune.operations.status import status
from hpc_tune.run import RunDir, user_name
from hpc_tune.slurm import refusals
from hpc_tune.slurm.client import Slurm
from hpc_tune.slurm.states import JobState

__all__ = ["Task", "carry_out", "going_on", "send_again", "start", "wait"]

FOR_EVER = 365 * 24 * 60
"""Minutes: submitit ends a process after two unless it is told how long it may take."""
LOOK = 0.2
"""Seconds between two looks at a process of this machine."""
ENOUGH = 2
"""How often a follow-up is looked at that seems to have ended without an outcome."""

_processes: dict[Path, Any] = {}
"""What submitit started on this machine and nobody has waited for, by follow-up."""


@dataclass(frozen=True)
class Task:
    """What a follow-up is to do."""

    kind: Kind
    runs: tuple[RunDir, ...]
    arguments: Mapping[str, Any]
    trial: TrialResources = field(default_factory=TrialResources)
    """What its process needs, as a trial does."""
    after: tuple[RunDir, ...] = ()
    prepare: Callable[[Path], Mapping[str, Any]] = lambda folder: {}
    """Is given the follow-up's folder before it is sent, to put there what must not change; returns further
    arguments."""


def carry_out(
    task: Task, *, here: bool = False, waits: bool | None = None, overrides: Sequence[str] = (), slurm: Slurm
) -> FollowUpStatus:
    """Do what a task says, or send it off.

    Args:
        task: the task.
        here: in this process.
        waits: return when it is over; None: only where there is no Slurm.
        overrides: ``KEY=VALUE`` texts for ``[allocation]``, for a job on Slurm.
        slurm: where to, if it is installed.

    Raises:
        ExperimentError, UsageError, SlurmError: as ``start``.
    """
    if here:
        from hpc_tune.operations.perform import perform

        made = start(task, "here", overrides=overrides, slurm=slurm)
        perform(made, slurm=slurm)
        return look(made, slurm)
    executor: Executor = "slurm" if slurm.is_installed else "local"
    made = start(task, executor, overrides=overrides, slurm=slurm)
    waits = executor == "local" if waits is None else waits
    return wait(made, slurm=slurm) if waits else look(made, slurm)


def start(task: Task, executor: Executor, *, overrides: Sequence[str] = (), slurm: Slurm) -> FollowUp:
    """Send a follow-up, or put it on record for this process.

    Args:
        task: what it is to do.
        executor: where.
        overrides: ``KEY=VALUE`` texts for ``[allocation]``, for a job on Slurm.
        slurm: where to.

    Raises:
        ExperimentError: if it asks for what the site does not have.
        UsageError: if a run that is to be over before runs without Slurm, which cannot wait for it.
        SlurmError: if Slurm refuses; nothing of the follow-up is left then.
    """
    if overrides and executor != "slurm":
        raise UsageError("options of a Slurm job are given, but it runs on this machine", hint="leave them out")
    request: dict[str, Any] = {}
    if executor == "slurm":
        request = submitit_parameters(task.kind, task.runs[0], task.trial, overrides, slurm)
    jobs = _jobs_before(task.after, slurm) if executor == "slurm" else []
    made = FollowUp.create(task.runs[0].path, task.kind)
    try:
        record = FollowUpRecord(
            task.kind,
            executor,
            socket.gethostname(),
            time.time(),
            tuple(str(run.path) for run in task.runs),
            tuple(str(run.path) for run in task.after),
            {**task.arguments, **task.prepare(made.path)},
            request,
        )
        record.write(made.record_file)
        _send(made, record, jobs, slurm, by="submit")
    except BaseException as error:
        if not getattr(error, "outcome_unknown", False):
            shutil.rmtree(made.path, ignore_errors=True)
        raise
    return made


def send_again(followup: FollowUp, record: FollowUpRecord, jobs: Sequence[str], slurm: Slurm) -> None:
    """Send a follow-up once more, from within its job, to come after further jobs.

    Raises:
        SlurmError: if Slurm refuses.
    """
    _send(followup, record, jobs, slurm, by="successor")


def going_on(run: RunDir, slurm: Jobs) -> list[str]:
    """Return the jobs with which a run goes on: those that wait or run, not one that is just ending."""
    jobs = status(run, slurm=slurm).jobs
    return [job.job_id for job in jobs if job.state.is_live and job.state is not JobState.COMPLETING]


def _jobs_before(runs: Sequence[RunDir], slurm: Slurm) -> list[str]:
    jobs = []
    for run in runs:
        now = status(run, slurm=slurm)
        if now.over:
            continue
        live = [job.job_id for job in now.jobs if job.state.is_live]
        if not live:
            raise UsageError(
                f"Slurm cannot wait for {run.name}: {now.reason}", hint="wait until it is over, then leave out --after"
            )
        jobs += live
    return jobs


def _send(followup: FollowUp, record: FollowUpRecord, jobs: Sequence[str], slurm: Slurm, *, by: Any) -> None:
    job_id = str(os.getpid()) if record.executor == "here" else _by_submitit(followup, record, jobs, slurm)
    followup.put_on_record(Submission(job_id, "", time.time(), by))


def _by_submitit(followup: FollowUp, record: FollowUpRecord, jobs: Sequence[str], slurm: Slurm) -> str:
    import submitit
    from submitit.core.utils import FailedJobError

    from hpc_tune.operations.perform import job

    folder = followup.submitit_dir
    if "%" in str(folder) or not str(folder).isprintable():  # submitit and Slurm take % for a pattern
        raise RunError(f"the path {str(folder)!r} cannot be written in a job script", hint="use --here")
    executor: Any
    if record.executor == "slurm":
        executor = submitit.SlurmExecutor(folder, python='"${python[@]}"')
        dependency = f"afterany:{':'.join(dict.fromkeys(jobs))}" if jobs else None
        executor.update_parameters(**record.request, dependency=dependency)
    else:
        executor = submitit.LocalExecutor(folder)
        executor.update_parameters(timeout_min=FOR_EVER, stderr_to_stdout=True)
    # submitit's processes import from where they start, and pass on all variables
    with contextlib.chdir(followup.path), _environment(slurm.environment()):
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises, too
                sent = executor.submit(job, str(followup.path), os.environ.get("CUDA_VISIBLE_DEVICES"))
        except FailedJobError as error:
            raise refusals.refused("sbatch", str(error)) from error
    if record.executor == "local":
        _processes[followup.path] = sent
    return str(sent.job_id)


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def wait(
    followup: FollowUp, *, slurm: Jobs | None = None, sleep: Callable[[float], None] = time.sleep
) -> FollowUpStatus:
    """Wait until a follow-up is over; an interrupt ends one that is a process of this machine.

    submitit would ask ``sacct``, which many sites do not have.
    """
    patient = Patient(slurm or Slurm())
    looked = 0
    try:
        while looked < ENOUGH:
            found = look(followup, patient)
            if found.ended is not None or (found.kind == "replay" and found.state == "done"):
                break
            if not found.state.is_live and not _is_silent(found):
                looked += 1  # its outcome may be on its way through a network file system
            sleep(LOOK if found.executor == "local" else 2.0)
        process = _processes.pop(followup.path, None)
        while process is not None and not process.done():
            sleep(LOOK)
        return found
    except KeyboardInterrupt:
        record = followup.record()
        if record is not None and record.executor == "local":  # the terminal has told the process, too
            Cancellation(user_name(), socket.gethostname(), time.time()).write(followup.cancel_file)
        raise


def look(followup: FollowUp, slurm: Jobs) -> FollowUpStatus:
    """Tell how a follow-up stands now.

    Raises:
        RunError: if its record is gone.
    """
    if (facts := FollowUpFacts.read(followup)) is None:
        raise RunError(f"{followup.record_file} is missing or damaged")
    return judge(facts, ask(slurm, facts.open_job_ids))


def _is_silent(found: FollowUpStatus) -> bool:
    """Tell whether Slurm alone knows more and does not answer now."""
    return found.state == "unknown" and found.executor == "slurm"
