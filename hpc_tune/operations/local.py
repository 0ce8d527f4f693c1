"""A search on this machine, without Slurm."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hpc_tune.attempt import Attempt, AttemptRecord, Outcome
from hpc_tune.errors import ExperimentError, RunBusy, RunError, refuse
from hpc_tune.experiment.capacity import Node, fit_trial, unfit
from hpc_tune.experiment.load import LoadedExperiment, load_experiments
from hpc_tune.experiment.spec import Experiment
from hpc_tune.machine import this_machine
from hpc_tune.operations.continuing import check_continuable, edited_since, extending
from hpc_tune.operations.tables import Collected, collect
from hpc_tune.operations.watching import Watcher
from hpc_tune.process import end_marked
from hpc_tune.progress import Progress
from hpc_tune.run import RunDir
from hpc_tune.runtime.environment import attempt_environment

__all__ = ["Ended", "Search", "resume", "run", "search_of", "searches"]

REFRESH = 0.25
"""Seconds between two looks at a live search."""


@dataclass(frozen=True)
class Ended:
    """How an attempt on this machine ended."""

    run: RunDir
    attempt: Attempt
    outcome: Outcome
    collected: Collected | None
    collect_error: str | None = None
    notes: tuple[str, ...] = field(default=())
    stopped: bool = False
    """Whether an interrupt came: its owner wants nothing more of it."""


@dataclass(frozen=True)
class Search:
    """An experiment that can run on this machine."""

    loaded: LoadedExperiment
    overrides: tuple[str, ...]
    node: Node
    notes: tuple[str, ...]


def searches(
    experiment_files: Sequence[Path],
    *,
    overrides: Sequence[str] = (),
    cpus: float | None = None,
    gpus: float | None = None,
) -> list[Search]:
    """Read and check experiments that are to run on this machine; nothing is created.

    Raises:
        FaultyFile: with all that is wrong with them, also that a trial can never fit this machine.
    """
    node = this_machine(cpus=cpus, gpus=gpus)
    found, faulty = [], []
    for each in load_experiments(experiment_files, overrides):
        try:
            found.append(search_of(each, overrides, node))
        except ExperimentError as error:
            faulty.append(error)
    refuse(faulty)
    return found


def search_of(loaded: LoadedExperiment, overrides: Sequence[str], node: Node) -> Search:
    """Check that a machine can run an experiment.

    Raises:
        ExperimentError: if a trial can never fit it.
    """
    return Search(loaded, tuple(overrides), node, tuple(_check_capacity(loaded.experiment, node, loaded.path)))


def run(
    search: Search,
    *,
    runs_dir: Path,
    watcher: Watcher | None = None,
    on_created: Callable[[RunDir], None] = lambda run: None,
) -> Ended:
    """Run a whole search on this machine; ``on_created`` is told of its directory before it begins.

    Raises:
        RunError: if the run directory cannot be created.
    """
    experiment = search.loaded.experiment
    created = RunDir.create(
        runs_dir,
        search.loaded,
        overrides=search.overrides,
        seed=random.SystemRandom().randrange(2**32) if experiment.seed is None else experiment.seed,
        command=sys.argv,
    )
    on_created(created)
    return _attempt_here(created, experiment, "local", search.node, notes=search.notes, watcher=watcher)


def resume(
    run: RunDir,
    *,
    retry_errors: bool = False,
    more_samples: int = 0,
    cpus: float | None = None,
    gpus: float | None = None,
    watcher: Watcher | None = None,
) -> Ended:
    """Continue an interrupted or failed run on this machine, or extend it.

    Raises:
        RunBusy: if the run is live.
        RunError: if it is complete, belongs to somebody else, or its experiment was changed.
    """
    if (holder := run.lock.holder()) is not None:
        raise RunBusy(f"{run.name} is live: {holder} is at work in it", hint="wait for it, or end that process")
    loaded = check_continuable(run, retry_errors=retry_errors, more_samples=more_samples)
    node = this_machine(cpus=cpus, gpus=gpus)
    notes = _check_capacity(loaded.experiment, node, run.experiment_file) + edited_since(run.record())
    with extending(run, loaded.experiment.num_samples) if more_samples else nullcontext():
        return _attempt_here(
            run, loaded.experiment, "resume", node, notes=notes, watcher=watcher, retry_errors=retry_errors
        )


def _check_capacity(experiment: Experiment, node: Node, source: Path) -> list[str]:
    trial = fit_trial(experiment.trial, [node])
    if faults := unfit(trial, [node], where="this machine"):
        raise ExperimentError(source, faults)
    if trial != experiment.trial:
        return ["no GPU on this machine: trials run on CPUs"]
    return []


def _attempt_here(
    run: RunDir,
    experiment: Experiment,
    kind: Literal["local", "resume"],
    node: Node,
    *,
    notes: Sequence[str],
    watcher: Watcher | None,
    retry_errors: bool = False,
) -> Ended:
    watcher = watcher or Watcher()
    attempt = run.new_attempt()
    given = AttemptRecord(
        kind, os.uname().nodename, node.cpus, node.gpus, retry_errors=retry_errors, started=time.time()
    )
    attempt.begin(given)
    watcher.started(run, experiment, notes)
    outcome, stopped = _drive(run, attempt, watcher)
    if outcome.exit_code == RunBusy.exit_code:
        raise RunBusy(outcome.reason, hint=outcome.hint)
    try:
        collected, collect_error = collect(run), None
    except RunError as error:
        collected, collect_error = None, error.message
    return Ended(run, attempt, outcome, collected, collect_error, tuple(notes), stopped)


def _drive(run: RunDir, attempt: Attempt, watcher: Watcher) -> tuple[Outcome, bool]:
    """Start the driver, follow it to its end, and clean up behind it however it ended; say whether it was stopped."""
    temp_dir = Path(tempfile.mkdtemp(prefix="hpc-tune-", dir=_short_temp_root()))
    command = [sys.executable, "-m", "hpc_tune.runtime.driver", str(run.path), str(attempt.path)]
    try:
        with attempt.driver_log.open("ab") as log:
            driver = subprocess.Popen(
                [*command, "--temp-dir", str(temp_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=attempt_environment(os.environ, attempt, run.code, stop_file=temp_dir / "stop"),
                start_new_session=True,  # a terminal's Ctrl-C reaches us alone; we pass it on
            )
            stopped = _follow(driver, attempt, watcher)
            end_marked(str(attempt.path), sessions=[driver.pid])
    finally:
        shutil.rmtree(temp_dir, ignore_errors=True)
    if (outcome := attempt.outcome()) is None:
        outcome = Outcome.of_driver(driver.returncode, attempt)
        with suppress(OSError):  # the disk may be full; the answer is for our caller first
            attempt.end(outcome)
    return outcome, stopped


def _short_temp_root() -> str:
    """Return where Ray's sockets can lie: a socket's path ends at 107 bytes, and Ray adds some 60 to this one."""
    wanted = tempfile.gettempdir()
    return wanted if len(wanted) <= 25 else "/tmp"


def _follow(driver: subprocess.Popen[bytes], attempt: Attempt, watcher: Watcher) -> bool:
    """Pass on what the driver says, and to the driver what its owner wants: one interrupt to save, two to end.

    Returns:
        Whether one came.
    """
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    stops = 0
    try:
        while driver.poll() is None:
            try:
                if (progress := Progress.read(attempt.progress_file)) is not None:
                    watcher.progress(progress)
                driver.wait(timeout=REFRESH)
            except subprocess.TimeoutExpired:
                continue
            except KeyboardInterrupt:
                stops += 1
                if stops == 1:
                    watcher.stopping()
                    driver.send_signal(signal.SIGTERM)
                else:
                    os.killpg(driver.pid, signal.SIGKILL)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return stops > 0
