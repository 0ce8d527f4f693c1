"""Sending a run to Slurm: a new one, or one that goes on."""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpc_tune.attempt import Submission
from hpc_tune.durable import write_text
from hpc_tune.errors import RunBusy, RunError, SlurmError
from hpc_tune.line import stand_in_line, waiting_behind
from hpc_tune.operations.continuing import check_continuable, edited_since, extending
from hpc_tune.operations.facts import RunFacts, ask
from hpc_tune.operations.planning import Plan, plan_again
from hpc_tune.operations.standing import stand
from hpc_tune.run import RunDir
from hpc_tune.slurm.client import Slurm

__all__ = ["Submitted", "put_on_record", "resubmit", "send", "submit", "submit_together"]

SentBy = Literal["submit", "resume", "successor"]


@dataclass(frozen=True)
class Submitted:
    """A run that waits for its nodes."""

    run: RunDir
    job_id: str
    plan: Plan
    notes: tuple[str, ...] = ()
    """What to know of a run that goes on."""


def submit(planned: Plan, *, overrides: Sequence[str], slurm: Slurm) -> Submitted:
    """Create the run with everything that the job needs, then send its script. See :func:`submit_together`."""
    return submit_together([planned], overrides=overrides, slurm=slurm)[0]


def submit_together(plans: Sequence[Plan], *, overrides: Sequence[str], slurm: Slurm) -> list[Submitted]:
    """Create runs that one job has one after another, then send the script of the first.

    Raises:
        RunError: if a run directory cannot be created.
        SlurmError: if Slurm refuses; nothing of the runs is left then.
    """
    runs_dir = plans[0].run_path.parent
    first = not runs_dir.exists()
    runs: list[RunDir] = []
    try:
        for each in plans:
            runs.append(_create(each, overrides))
        stand_in_line(runs)
        for run, each in zip(runs[1:], plans[1:], strict=True):
            _write_script(run, each.script(run.path))
        job_id = send(runs[0], plans[0].script(runs[0].path), by="submit", slurm=slurm)
    except (SlurmError, RunError, OSError) as error:
        if not getattr(error, "outcome_unknown", False):  # the job may be there after all, and needs its runs
            for run in runs:
                shutil.rmtree(run.path, ignore_errors=True)
            if first:
                with suppress(OSError):
                    runs_dir.rmdir()
        raise
    for run in runs:
        _link(run)
    return [Submitted(run, job_id, each) for run, each in zip(runs, plans, strict=True)]


def _create(planned: Plan, overrides: Sequence[str]) -> RunDir:
    seed = planned.loaded.experiment.seed
    return RunDir.create(
        planned.run_path.parent,
        planned.loaded,
        overrides=overrides,
        seed=random.SystemRandom().randrange(2**32) if seed is None else seed,
        command=sys.argv,
    )


def resubmit(
    run: RunDir, *, overrides: Sequence[str], retry_errors: bool, more_samples: int = 0, slurm: Slurm
) -> Submitted:
    """Send another attempt of an interrupted or failed run to Slurm, if need be with other nodes.

    Runs that wait behind it get the same nodes.

    Args:
        run: the run.
        overrides: ``KEY=VALUE`` texts for ``[allocation]``, beside those that the run began with.
        retry_errors: start failed trials again.
        more_samples: by how many samples to extend the search.
        slurm: where to.

    Raises:
        RunBusy: if the run is live, waits in Slurm, or somebody else is just resuming it.
        RunError: if there is nothing to continue, or the search was changed.
        FaultyFile: if the new attempt asks for what the site does not have.
        SlurmError: if Slurm refuses, or does not say what has become of the jobs so far.
    """
    with run.submit_lock.held() as got:
        if not got:
            raise RunBusy(f"{run.name} is just being resumed by another command")
        _refuse_live(run, slurm)
        loaded = check_continuable(run, retry_errors=retry_errors, more_samples=more_samples, overrides=overrides)
        behind = waiting_behind(run)
        theirs = [check_continuable(each, retry_errors=False, overrides=overrides) for each in behind]
        planned, *plans = plan_again([loaded, *theirs], [run, *behind], slurm)
        script = planned.script(run.path, retry_errors=retry_errors)
        with extending(run, loaded.experiment.num_samples) if more_samples else nullcontext():
            job_id = send(run, script, by="resume", slurm=slurm)
        for each, plan in zip(behind, plans, strict=True):
            _write_script(each, plan.script(each.path))
    notes = [f"{each.name} waits behind it, and has its turn in the same job" for each in behind]
    return Submitted(run, job_id, planned, (*edited_since(run.record()), *notes))


def _refuse_live(run: RunDir, slurm: Slurm) -> None:
    facts = RunFacts.read(run)
    view = ask(slurm, facts.open_job_ids)
    if view.silence is not None:
        raise SlurmError(
            f"whether {run.name} is live cannot be told: {view.silence}", hint="try again when Slurm answers"
        )
    standing = stand(facts, view)
    if standing.live:
        raise RunBusy(
            f"{run.name} is live: {standing.reason}", hint=f"wait for it, or end it: hpc-tune cancel {run.name}"
        )


def send(run: RunDir, script: str, *, by: SentBy, slurm: Slurm) -> str:
    """Write the job script of a run, send it to Slurm, and put the submission on record; return the job's id.

    Raises:
        SlurmError: if Slurm refuses.
    """
    _write_script(run, script)
    return put_on_record(run, slurm.submit(run.job_script), by=by)


def _write_script(run: RunDir, script: str) -> None:
    run.jobs_dir.mkdir(mode=0o700, exist_ok=True)
    write_text(run.job_script, script)


def put_on_record(run: RunDir, sent: tuple[str, str], *, by: SentBy) -> str:
    """Put a submission on record; return the job's id."""
    job_id, cluster = sent
    Submission(job_id, cluster, time.time(), by).write(run.jobs_dir / f"{job_id}.json")
    return job_id


def _link(run: RunDir) -> None:
    """Have a run that lies elsewhere found in ``./runs``, where the other commands look for it."""
    here = Path("runs")
    if run.path.parent != here.resolve():
        with suppress(OSError):  # a convenience: the run's own path does as well
            here.mkdir(exist_ok=True)
            (here / run.name).symlink_to(run.path)
