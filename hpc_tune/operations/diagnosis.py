"""Why a run failed: its records, what Slurm says, and what is in its logs, held against the failures that are known."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpc_tune.errors import TrialsFailed
from hpc_tune.experiment.duration import format_seconds
from hpc_tune.operations.causes import Cause, Evidence, causes
from hpc_tune.operations.facts import AttemptFacts, Jobs, RunFacts, SlurmView, ask
from hpc_tune.operations.standing import RunState, Standing, stand
from hpc_tune.results.failure import error_line
from hpc_tune.run import RunDir
from hpc_tune.slurm.client import Slurm

__all__ = ["Diagnosis", "diagnose"]

TAIL = 2**18
"""Bytes at the end of a log that are looked at."""
MOST_ERRORS = 500
"""Failed trials whose errors are read: what fails by the thousand fails in the same way."""


@dataclass(frozen=True)
class Diagnosis:
    """How a run stands, and why it failed as far as can be told."""

    run: RunDir
    state: RunState
    reason: str
    causes: tuple[Cause, ...]
    """The likeliest first; empty where nothing is wrong, or nothing is known."""
    next: tuple[str, ...]
    """What to type where no cause was found."""

    @property
    def is_failure(self) -> bool:
        """Whether there is something to explain."""
        return self.state in (RunState.FAILED, RunState.INTERRUPTED, RunState.UNKNOWN) or bool(self.causes)


def diagnose(run: RunDir, *, slurm: Jobs | None = None) -> Diagnosis:
    """Say why a run failed; of one that is well, what went wrong in its trials.

    Raises:
        RunError: if the run record is missing or damaged.
    """
    facts = RunFacts.read(run)
    view = ask(slurm or Slurm(), facts.job_ids[-1:])
    standing = stand(facts, view)
    found = causes(_evidence(facts, view, standing), run.path) or _unknown(facts)
    if standing.state in (RunState.CANCELLED, RunState.COMPLETED, RunState.RUNNING):
        found = [cause for cause in found if cause.source.startswith("trial")]
    path = shlex.quote(str(run.path))
    return Diagnosis(run, standing.state, standing.reason, tuple(found), (f"hpc-tune logs {path} --full",))


def _evidence(facts: RunFacts, view: SlurmView, standing: Standing) -> Iterator[Evidence]:
    last = facts.last
    yield Evidence("its records", standing.reason)
    for job in view.jobs.values():
        yield Evidence("Slurm", f"{job.state.value} {job.reason}")
    if last is not None:
        yield from _records(last)
        yield from _node_logs(last)
        yield from _log("driver.log", last.attempt.driver_log, 2)
    for job_id in facts.job_ids[-1:]:
        yield from _log(f"the log of job {job_id}", facts.run.job_log(job_id), 1)
    all_failed = last is not None and last.outcome is not None and last.outcome.exit_code == TrialsFailed.exit_code
    for text, count in _trial_errors(facts.run.storage).most_common():
        yield Evidence(f"trials: {count} of them", text, 0 if all_failed else 1)


def _records(last: AttemptFacts) -> Iterator[Evidence]:
    if last.outcome is not None:
        yield Evidence("its records", last.outcome.reason)
        if last.outcome.cause == "walltime" and not (last.progress and last.progress.iterations):
            seconds = format_seconds(max(0.0, (last.ended or 0) - (last.started or 0)))
            number = last.attempt.number
            yield Evidence("its records", f"attempt {number} reached its walltime after {seconds} without a result")
    for node in last.attempt.nodes():
        if node.state == "failed":
            yield Evidence(f"node {node.name}", node.reason)


def _node_logs(last: AttemptFacts) -> Iterator[Evidence]:
    for path in sorted(last.attempt.nodes_dir.glob("*.log")):
        yield from _log(f"the log of node {path.stem}", path, 1)
    for path in sorted(last.attempt.nodes_dir.glob("*/*")):
        yield from _log(f"Ray's {path.name} of node {path.parent.name}", path, 3)


def _log(source: str, path: Path, weight: int) -> Iterator[Evidence]:
    if text := _tail(path):
        yield Evidence(source, text, weight, path)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _trial_errors(storage: Path) -> Counter[str]:
    """Count the errors of failed trials, each in one line."""
    found: Counter[str] = Counter()
    try:
        folders = sorted(entry.path for entry in os.scandir(storage) if entry.is_dir())
    except OSError:
        return found
    for folder in folders:
        if text := error_line(_tail(Path(folder, "error.txt"))):
            found[text] += 1
        if found.total() >= MOST_ERRORS:
            break
    return found


def _unknown(facts: RunFacts) -> list[Cause]:
    """Say what a failure that no rule knows said of itself."""
    errors = _trial_errors(facts.run.storage)
    if errors:
        text, count = errors.most_common(1)[0]
        sentence = f"{count} trial{'s' if count > 1 else ''} failed: {text}"
        fix = "correct the trainable and submit it again: a run keeps to the code that it began with"
        return [Cause("trial error", sentence, fix, f"trials: {count} of them", text)]
    last = facts.last
    if last is None or last.outcome is None or last.outcome.ending != "failed":
        return []
    fix = last.outcome.hint or f"see {last.attempt.driver_log}"
    return [Cause("unknown", last.outcome.reason, fix, "its records", last.outcome.reason)]
