"""The driver: the process that runs Tune for one attempt of a run.

It is started by ``hpc-tune run`` and ``resume`` on this machine. Everything that it and Ray say goes to
``driver.log``; what its caller needs to know, it writes to ``progress.json`` and ``outcome.json``.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hpc_tune.attempt import Attempt, AttemptRecord, Outcome
from hpc_tune.durable import is_full
from hpc_tune.errors import HpcTuneError, RunError, TrialsFailed
from hpc_tune.experiment.capacity import fit_trial, slots
from hpc_tune.experiment.load import LoadedExperiment, load_experiment
from hpc_tune.experiment.source import resolve
from hpc_tune.process import end_with_parent
from hpc_tune.progress import Progress
from hpc_tune.run import RunDir
from hpc_tune.runtime.checkpointing import STOP_FILE
from hpc_tune.runtime.cluster import Cluster, LocalRay, SlurmRay
from hpc_tune.runtime.environment import limit_threads
from hpc_tune.runtime.stopping import GracefulStop

__all__ = ["main"]


PATIENCE = 10.0
"""Seconds that running trials get to report once more when their owner interrupts a search on this machine."""


class Interrupted(BaseException):
    """A signal came while there was nothing to save."""


@dataclass(frozen=True)
class DriverSettings:
    """What the driver is told by whoever starts it."""

    run: RunDir
    attempt: Attempt
    temp_dir: Path | None
    """Where to start a Ray of its own; None: join that of the node agents."""
    start_timeout: float
    patience: float
    parent: int
    """The process that started the driver: on Slurm the head node's agent."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one attempt and put its outcome on record; the exit code is the outcome's."""
    parser = argparse.ArgumentParser(prog="python -m hpc_tune.runtime.driver")
    parser.add_argument("run", type=Path)
    parser.add_argument("attempt", type=Path)
    parser.add_argument("--temp-dir", type=Path, help="where to start a Ray; left out: join that of the node agents")
    parser.add_argument("--start-timeout", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument("--patience", type=float, default=PATIENCE, metavar="SECONDS")
    parsed = parser.parse_args(arguments)
    settings = DriverSettings(
        RunDir(parsed.run),
        Attempt(parsed.attempt),
        parsed.temp_dir,
        parsed.start_timeout,
        parsed.patience,
        parent=os.getppid(),
    )
    outcome = _outcome(settings)
    settings.attempt.end(outcome)
    return outcome.exit_code


def _failure(settings: DriverSettings, error: Exception) -> Outcome:
    """Say in one sentence what went wrong; Tune wraps it in errors of its own."""
    causes = list(_with_causes(error))
    for each in causes:
        if isinstance(each, OSError) and is_full(each):
            return Outcome.of_full_disk(settings.attempt, quota=each.errno == errno.EDQUOT)
    first = causes[-1]
    return Outcome("failed", f"{type(first).__name__}: {first}", exit_code=1, hint=f"see {settings.attempt.driver_log}")


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _outcome(settings: DriverSettings) -> Outcome:
    try:
        _catch_signals()
        end_with_parent()
        with settings.run.locked():
            return _Driver(settings).drive()
    except Interrupted:
        return _interrupted(settings, "stopped before the first trial")
    except HpcTuneError as error:
        return Outcome("failed", error.message, exit_code=error.exit_code, hint=error.hint)
    except Exception as error:  # noqa: BLE001 - the last line of defence: whatever happened goes on record
        traceback.print_exc()
        return _failure(settings, error)


def _catch_signals() -> None:
    """Until Tune installs its own handlers, a signal means that there is nothing to save."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, interrupt)


def _interrupted(settings: DriverSettings, what: str) -> Outcome:
    """Say why the attempt was stopped."""
    given = settings.attempt.record()
    if given is None or given.job is None:
        return Outcome("interrupted", f"a signal came; {what}", exit_code=1, cause="signal")
    cause = settings.run.stop_cause(given.job)
    why = {"walltime": "the walltime is near", "cancelled": "it was cancelled"}.get(cause, "Slurm ends the job")
    if cause == "terminated" and os.getppid() != settings.parent:
        cause, why = "node", "the head node's agent was killed"
    return Outcome("interrupted", f"{why}; {what}", exit_code=1, cause=cause)


class _Driver:
    def __init__(self, settings: DriverSettings) -> None:
        self._run, self._attempt = settings.run, settings.attempt
        self._settings = settings
        self._record = self._run.record()
        given = _given(self._attempt)
        self._cluster: Cluster = (
            SlurmRay(self._attempt, given, settings.start_timeout)
            if settings.temp_dir is None
            else LocalRay(self._attempt, given, settings.temp_dir)
        )
        # on Slurm the node agents tell the trials, each on its node
        stop_file = Path(os.environ[STOP_FILE]) if settings.temp_dir is not None else None
        self._stop = GracefulStop(settings.patience, stop_file)
        self._retry_errors = given.retry_errors
        self._loaded: LoadedExperiment = load_experiment(
            self._run.experiment_file, self._record["overrides"], folder=self._run.code
        )
        self._experiment = self._run.extended(self._loaded.experiment)
        self._trial = fit_trial(self._experiment.trial, self._cluster.nodes)
        self._seed = int(self._record["seed"])
        self._phases: dict[str, float] = {}

    def drive(self) -> Outcome:
        """Start Ray, search, and say how it ended."""
        Progress("starting", total=self._experiment.total_trials).write(self._attempt.progress_file)
        limit_threads(os.environ, self._trial.cpus)
        with ThreadPoolExecutor(1) as background:
            # the user's imports and data take as long as Ray's start: side by side
            users = background.submit(self._load_users_code)
            self._connect()
            self._phases["driver_up"] = time.time()
            # from now on there is something to save; Ray's own handler would just exit
            signal.signal(signal.SIGTERM, lambda number, frame: self._stop.request())
            trainable, data = users.result()
        try:
            return self._search(trainable, data)
        finally:
            self._cluster.disconnect()

    def _connect(self) -> None:
        try:
            self._cluster.connect()
        except SystemExit:  # by Ray's own handler of SIGTERM, which takes the place of ours on the way
            raise Interrupted from None

    def _load_users_code(self) -> tuple[Any, Any]:
        trainable = resolve(self._experiment.trainable, self._run.code)
        load_data = self._experiment.data
        if self._experiment.tensorboard:  # imports PyTorch where there is one, as most trainables have by now
            import hpc_tune.runtime.tfevents  # noqa: F401
        return trainable, resolve(load_data, self._run.code)() if load_data is not None else None

    def _search(self, trainable: Any, data: Any) -> Outcome:
        from hpc_tune.runtime.tuning import Tuning

        tuning = Tuning(
            self._experiment,
            storage=self._run.storage,
            trial=self._trial,
            slots=slots(self._trial, self._cluster.nodes),
            seed=self._seed,
            progress_file=self._attempt.progress_file,
            phases=self._phases,
            graceful_stop=self._stop,
        )
        ended = tuning.run(
            trainable, data, retry_errors=self._retry_errors, seconds_spent=_seconds_spent(self._run, self._attempt)
        )
        if ended.unfinished:
            return _interrupted(self._settings, "the search is saved")
        if ended.trials and ended.errors == ended.trials:
            error = TrialsFailed(f"all {ended.trials} trials failed", hint="see the column error in trials.csv")
            return Outcome("failed", error.message, exit_code=error.exit_code, hint=error.hint)
        return Outcome("completed", ended.reason, hint="; ".join(ended.notes) or None)


def _given(attempt: Attempt) -> AttemptRecord:
    if (record := attempt.record()) is None:
        raise RunError(f"{attempt.record_file} is missing or damaged")
    return record


def _seconds_spent(run: RunDir, current: Attempt) -> float:
    """Return how long the attempts before this one searched: a time budget is the run's, not the attempt's."""
    earlier = (Progress.read(attempt.progress_file) for attempt in run.attempts() if attempt.number < current.number)
    return sum(progress.elapsed for progress in earlier if progress)


if __name__ == "__main__":
    sys.exit(main())
