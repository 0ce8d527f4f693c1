"""What a follow-up does in its own process: wait until it may, do it, put the outcome on record."""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpc_tune.attempt import Cancellation
from hpc_tune.durable import write_text
from hpc_tune.errors import HpcTuneError, RunError
from hpc_tune.followup import FollowUp, FollowUpOutcome, FollowUpRecord
from hpc_tune.operations.evaluate import Function, evaluate
from hpc_tune.operations.facts import Jobs
from hpc_tune.operations.followup_jobs import going_on, send_again
from hpc_tune.operations.replay import replay_here, replay_on_slurm
from hpc_tune.operations.report import report
from hpc_tune.operations.status import status
from hpc_tune.operations.tables import collect
from hpc_tune.run import RunDir, user_name
from hpc_tune.slurm.client import Slurm

__all__ = ["job", "perform"]

PATIENCE = 120.0
"""Seconds within which a run whose job has ended shows that it is over, or the job with which it goes on."""
PAUSE = 2.0


def job(path: str, devices: str | None) -> None:
    """Do what a follow-up is to do: what submitit calls.

    Args:
        path: the follow-up's folder.
        devices: the GPUs of this machine that its owner sees, which submitit hides from a process.
    """
    followup = FollowUp(Path(path))
    record = followup.record()
    if record is not None and record.executor == "local":
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        os.environ.update({} if devices is None else {"CUDA_VISIBLE_DEVICES": devices})
    outcome = perform(followup)
    if outcome is not None and not outcome.ok:
        raise SystemExit(outcome.reason)


def perform(
    followup: FollowUp, *, slurm: Slurm | None = None, sleep: Callable[[float], None] = time.sleep
) -> FollowUpOutcome | None:
    """Do what a follow-up is to do, and put on record how it went.

    Returns:
        The outcome; None where a run goes on that is to be over before, and the follow-up was sent again.

    Raises:
        RunError: if its record is gone.
    """
    if (record := followup.record()) is None:
        raise RunError(f"{followup.record_file} is missing or damaged")
    slurm = slurm or Slurm()
    started = time.time()
    try:
        if not _is_due(followup, record, slurm, sleep):
            return None
        outcome = FollowUpOutcome(True, started, 0.0, result=_WORK[record.kind](followup, record, slurm))
    except HpcTuneError as error:
        outcome = FollowUpOutcome(False, started, 0.0, error.message, error.hint)
    except KeyboardInterrupt:
        Cancellation(user_name(), socket.gethostname(), time.time()).write(followup.cancel_file)
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's
        write_text(followup.error_file, traceback.format_exc())
        outcome = FollowUpOutcome(False, started, 0.0, _said(error, record, followup), f"see {followup.error_file}")
    outcome = FollowUpOutcome(
        outcome.ok, started, time.time(), outcome.reason, outcome.hint, outcome.result
    )  # fmt: skip
    outcome.write(followup.outcome_file)
    return outcome


def _is_due(followup: FollowUp, record: FollowUpRecord, slurm: Slurm, sleep: Callable[[float], None]) -> bool:
    """Wait until the runs are over that have to be.

    Slurm's dependency knows one job of a run. Where the run goes on with another, the follow-up is sent again, to come
    after that one.

    Returns:
        Whether it may begin; False when it was sent again.
    """
    runs = [RunDir(Path(path)) for path in record.after]
    deadline = time.monotonic() + PATIENCE
    while going := [run for run in runs if not status(run, slurm=slurm).over]:
        if record.executor == "slurm":
            if jobs := [job_id for run in going for job_id in going_on(run, slurm)]:
                send_again(followup, record, jobs, slurm)
                return False
            if time.monotonic() > deadline:
                raise RunError(
                    f"whether {going[0].name} is over cannot be told: {status(going[0], slurm=slurm).reason}",
                    hint=f"when it is: hpc-tune {record.kind}",
                )
        sleep(PAUSE)
    return True


def _evaluate(followup: FollowUp, record: FollowUpRecord, slurm: Jobs) -> dict[str, Any]:
    source = record.arguments["source"]
    function = Function(record.arguments["function"], Path(source) if source else None)
    return evaluate(RunDir(Path(record.runs[0])), record.arguments["trial"], function, folder=followup.path)


def _collect(followup: FollowUp, record: FollowUpRecord, slurm: Jobs) -> dict[str, Any]:
    done = [collect(RunDir(Path(path))) for path in record.runs]
    return {"files": [str(file) for each in done for file in each.files]}


def _report(followup: FollowUp, record: FollowUpRecord, slurm: Jobs) -> dict[str, Any]:
    output, png = record.arguments["output"], record.arguments["png"]
    runs = [RunDir(Path(path)) for path in record.runs]
    done = report(runs, output=Path(output) if output else None, png=Path(png) if png else None)
    return {"files": [str(file) for file in (done.file, *done.images)]}


def _replay(followup: FollowUp, record: FollowUpRecord, slurm: Slurm) -> dict[str, Any]:
    run, trial = RunDir(Path(record.runs[0])), record.arguments["trial"]
    if record.executor == "slurm":
        sent = replay_on_slurm(run, trial, overrides=record.arguments["overrides"], on_record=True, slurm=slurm)
        return {"replay": str(sent.run.path), "job_id": sent.job_id}
    return {"replay": str(replay_here(run, trial, on_record=True).run.path)}


_WORK: Mapping[str, Callable[[FollowUp, FollowUpRecord, Slurm], dict[str, Any]]] = {
    "evaluate": _evaluate,
    "collect": _collect,
    "report": _report,
    "replay": _replay,
}


def _said(error: BaseException, record: FollowUpRecord, followup: FollowUp) -> str:
    """Return an error in a line, with the deepest line of the user's code."""
    own = [followup.path, *(RunDir(Path(path)).code for path in record.runs)]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if any(Path(frame.filename).is_relative_to(folder) for folder in own)
    ]
    place = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}: " if frames else ""
    text = str(error).strip()
    return f"{place}{type(error).__name__}{': ' if text else ''}{text.splitlines()[-1] if text else ''}"
