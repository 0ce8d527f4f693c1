"""Runs that share one job, one after another: the line that they stand in, and whose turn it is.

```text
line.json             names of all runs of the line, in their order; written once, with the run
jobs/4711.next        symlink to the run that job 4711 went on to
jobs/turn.cancelled   by whom a run was taken out of the line before its turn came
```
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hpc_tune.attempt import SlurmJob, Submission
from hpc_tune.durable import read_json, write_json
from hpc_tune.run import RunDir

__all__ = [
    "TURN",
    "ahead",
    "hand_over",
    "handed_jobs",
    "handed_to",
    "stand_in_line",
    "take_back",
    "waiting_behind",
    "waits",
]

TURN = "turn"
"""Stands for the job of a run that has none yet, where its owner cancels it."""


def stand_in_line(runs: Sequence[RunDir]) -> None:
    """Put new runs, of one directory, one behind the other; one alone stands in no line."""
    if len(runs) > 1:
        for run in runs:
            write_json(_file(run), {"runs": [each.name for each in runs]})


def waits(run: RunDir) -> bool:
    """Tell whether a run is yet to have its turn: nothing has been sent or started for it, and nobody cancelled it."""
    stands_behind = bool(_runs(run)[0])
    return stands_behind and not run.submissions() and not run.attempts() and not run.cancel_file(TURN).exists()


def ahead(run: RunDir) -> RunDir | None:
    """Return the run whose end a waiting one waits for: the nearest before it that is not cancelled."""
    before = [each for each in _runs(run)[0] if waits(each) or each.submissions() or each.attempts()]
    return before[-1] if before else None


def waiting_behind(run: RunDir) -> list[RunDir]:
    """Return the runs that wait for their turn behind a run, in their order."""
    return [each for each in _runs(run)[1] if waits(each)]


def hand_over(run: RunDir, job: SlurmJob) -> RunDir | None:
    """Give a job to the first run that waits behind another; the job's script goes on with it then.

    Returns:
        That run, or None if none waits.
    """
    for each in _runs(run)[1]:
        with each.submit_lock.held() as got:  # its owner may be about to send it alone
            if got and waits(each):
                Submission(job.job_id, job.cluster, time.time(), "successor").write(_submission(each, job))
                _link(run, job.job_id).symlink_to(Path("../..") / each.name)
                return each
    return None


def handed_to(run: RunDir, job_id: str) -> str | None:
    """Return the name of the run that a job has gone on to, or None if it has not."""
    link = _link(run, job_id)
    return link.readlink().name if link.is_symlink() else None


def take_back(run: RunDir, job: SlurmJob, handed_to: RunDir) -> None:
    """Undo that a job was given to another run."""
    _link(run, job.job_id).unlink()
    _submission(handed_to, job).unlink()


def handed_jobs(run: RunDir) -> set[str]:
    """Return the jobs of a run that have gone on to another one."""
    return {path.stem for path in run.jobs_dir.glob("*.next")}


def _file(run: RunDir) -> Path:
    return run.path / "line.json"


def _link(run: RunDir, job_id: str) -> Path:
    return run.jobs_dir / f"{job_id}.next"


def _submission(run: RunDir, job: SlurmJob) -> Path:
    return run.jobs_dir / f"{job.job_id}.json"


def _runs(run: RunDir) -> tuple[list[RunDir], list[RunDir]]:
    """Return the runs before and behind a run in its line, as far as they are still there."""
    names = (read_json(_file(run)) or {}).get("runs", [])
    with suppress(ValueError):
        place = names.index(run.name)
        runs = [RunDir(run.path.parent / name) for name in names]
        there = [[each for each in part if each.record_file.exists()] for part in (runs[:place], runs[place + 1 :])]
        return there[0], there[1]
    return [], []
