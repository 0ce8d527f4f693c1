"""The logs of a run: which there are, their last lines, and all that is added to them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpc_tune.attempt import Attempt
from hpc_tune.errors import RunError, UsageError
from hpc_tune.experiment.nearest import did_you_mean, nearest
from hpc_tune.operations.facts import Jobs, Patient, RunFacts, ask
from hpc_tune.operations.standing import stand
from hpc_tune.run import RunDir
from hpc_tune.slurm.client import Slurm

__all__ = ["Choice", "Chunk", "Log", "find_trial", "follow", "logs", "tail"]

_BLOCK = 2**16
_NUMBERED = re.compile(r"_(\d+)$")
_NAMED = 5
"""Trials that an error names; there may be thousands."""


@dataclass(frozen=True)
class Log:
    """One file to read."""

    kind: Literal["batch", "node", "driver", "output", "error"]
    name: str
    """The job, the node, the trial; empty for the driver's."""
    attempt: int | None
    """None where the file goes on over all attempts."""
    path: Path


@dataclass(frozen=True)
class Choice:
    """Which logs: when none is chosen, those of job, nodes and driver."""

    trial: str | None = None
    batch: bool = False
    driver: bool = False
    nodes: tuple[str, ...] = ()
    attempt: int | None = None
    """None: the last one."""

    @property
    def is_open(self) -> bool:
        """Whether nothing in particular is chosen."""
        return not (self.trial or self.batch or self.driver or self.nodes)


@dataclass(frozen=True)
class Chunk:
    """Whole lines that were added to a log."""

    log: Log
    text: str


def logs(run: RunDir, choice: Choice) -> list[Log]:
    """Return the chosen logs that are there.

    Raises:
        UsageError: if there is no such attempt, node or trial.
        RunError: if a log that was chosen is not there.
    """
    found = _chosen(run, RunFacts.read(run), choice)
    there = [log for log in found if log.path.is_file()]
    failed = {log.name for log in there if log.kind == "error"}  # they need not have printed anything
    missing = [log for log in found if log not in there and log.kind != "error" and log.name not in failed]
    if missing and (not there or not choice.is_open):
        if missing[0].kind == "output":
            what = f"trial {missing[0].name} has printed nothing so far"
            raise RunError(what, hint=f"what it has reported goes into the tables: hpc-tune collect {run.path}")
        raise RunError(f"{missing[0].path} is not there (yet)", hint=f"hpc-tune status {run.path} says why")
    return there


def _chosen(run: RunDir, facts: RunFacts, choice: Choice) -> list[Log]:
    attempt = _attempt(facts, choice.attempt)
    everything = choice.is_open
    found: list[Log] = []
    if choice.batch or everything:
        found += _batch(facts, choice, attempt)
    if attempt is not None and (choice.nodes or everything):
        found += _nodes(attempt, choice.nodes)
    if attempt is not None and (choice.driver or everything):
        found.append(Log("driver", "", attempt.number, attempt.driver_log))
    if choice.trial is not None:
        found += _of_trial(run.storage / find_trial(run.storage, choice.trial))
    if not found:
        raise RunError(f"{run.name} has not begun: it has no logs yet", hint=f"hpc-tune status {run.path} says why")
    return found


def _attempt(facts: RunFacts, number: int | None) -> Attempt | None:
    attempts = {each.attempt.number: each.attempt for each in facts.attempts}
    if number is None:
        return facts.last.attempt if facts.last else None
    if number not in attempts:
        raise UsageError(f"{facts.run.name} has no attempt {number}", hint=f"it has {len(attempts)}, counted from 1")
    return attempts[number]


def _batch(facts: RunFacts, choice: Choice, attempt: Attempt | None) -> list[Log]:
    """Return the log of the attempt's job, or of a newer job whose attempt has not begun."""
    if choice.attempt is None and facts.unseen is not None:
        job_id = facts.unseen.job_id
    else:
        record = attempt.record() if attempt else None
        if record is None or record.job is None:
            if choice.batch and attempt is not None:
                raise UsageError(
                    f"attempt {attempt.number} ran without Slurm", hint="its log is the driver's: --driver"
                )
            return []
        job_id = record.job.job_id
    return [Log("batch", job_id, None, facts.run.job_log(job_id))]


def _nodes(attempt: Attempt, names: Sequence[str]) -> list[Log]:
    """Return the logs of the named nodes, or of all that have one; one that Slurm granted may still get its own."""
    logged = sorted(path.stem for path in attempt.nodes_dir.glob("*.log"))
    record = attempt.record()
    granted = record.job.nodes if record and record.job else ()
    for name in names:
        if name not in (*logged, *granted):
            hint = did_you_mean(name, {*logged, *granted})
            raise UsageError(f"attempt {attempt.number} has no node {name!r}", hint=hint)
    return [Log("node", name, attempt.number, attempt.node_log(name)) for name in names or logged]


def _of_trial(folder: Path) -> list[Log]:
    return [
        Log("output", folder.name, None, folder / "output.log"),
        Log("error", folder.name, None, folder / "error.txt"),
    ]


def find_trial(storage: Path, reference: str) -> str:
    """Return the trial that a user means: by its id, the beginning of it, or its number.

    Raises:
        UsageError: if there is none, or several.
    """
    names = _trials(storage)
    if reference in names:
        return reference
    matches = [name for name in names if name.startswith(reference) or _has_number(name, reference)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        more = f" and {len(matches) - _NAMED} more" if len(matches) > _NAMED else ""
        raise UsageError(
            f"trial {reference!r} could be any of {', '.join(matches[:_NAMED])}{more}", hint="type more of it"
        )
    match = nearest(reference, names)
    known = f"there are {len(names)}, such as {', '.join(names[:_NAMED])}" if names else "no trial has started yet"
    raise UsageError(f"there is no trial {reference!r}", hint=f"did you mean {match!r}?" if match else known)


def _trials(storage: Path) -> list[str]:
    try:
        with os.scandir(storage) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return []


def _has_number(name: str, reference: str) -> bool:
    found = _NUMBERED.search(name)
    return found is not None and reference.isdecimal() and int(found[1]) == int(reference)


def tail(path: Path, lines: int | None) -> list[str]:
    """Return the last lines of a file, or all; what is no UTF-8 is shown as such."""
    with path.open("rb") as file:
        file.seek(0 if lines is None else _position(path, lines))
        return file.read().decode(errors="replace").splitlines()


def _position(path: Path, lines: int) -> int:
    """Return where the last lines of a file begin, without reading the rest of it."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        position, text = end, b""
        while position > 0 and text.rstrip(b"\n").count(b"\n") < lines:
            step = min(_BLOCK, position)
            position = file.seek(position - step)
            text = file.read(step) + text
    kept = text.splitlines(keepends=True)[-lines:] if lines else []
    return end - sum(map(len, kept))


def follow(
    run: RunDir,
    choice: Choice,
    *,
    lines: int | None = 0,
    pause: float = 1.0,
    slurm: Jobs | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Chunk]:
    """Yield what is in the logs and what is added, over all attempts that follow, until the run is over.

    Args:
        run: the run; it may wait in Slurm.
        choice: which logs. One that is not there yet is waited for.
        lines: how many of what is there already; None for all.
        pause: seconds between two looks.
        slurm: who knows about jobs.
        sleep: how to wait.

    Raises:
        UsageError: if there is no such attempt or trial.
    """
    followed = _Followed(run, choice, lines)
    patient = Patient(slurm or Slurm())
    while True:
        over = _is_over(run, choice, patient)  # first, so that what is written until then is read
        yield from followed.added(rest=over)
        if over:
            return
        sleep(pause)


def _is_over(run: RunDir, choice: Choice, slurm: Jobs) -> bool:
    facts = RunFacts.read(run)
    if choice.attempt is not None and any(
        each.attempt.number > choice.attempt or each.outcome is not None
        for each in facts.attempts
        if each.attempt.number >= choice.attempt
    ):
        return True
    return stand(facts, ask(slurm, facts.open_job_ids)).is_over


class _Followed:
    """The logs that are followed: those of the last attempt, and of the one before to its end."""

    def __init__(self, run: RunDir, choice: Choice, lines: int | None) -> None:
        self._run = run
        self._choice = choice
        self._lines = lines
        self._read: dict[Log, int] = {}
        self._begun = False

    def added(self, *, rest: bool) -> Iterator[Chunk]:
        """Yield whole lines that are new; with ``rest`` also a last one without its end."""
        for log in self._logs():
            if log not in self._read:
                # a log that appears later is new as a whole
                skipped = not self._begun and self._lines is not None
                self._read[log] = _position(log.path, self._lines or 0) if skipped else 0
            if text := self._new(log, rest=rest):
                yield Chunk(log, text)
        self._begun = True

    def _logs(self) -> list[Log]:
        facts = RunFacts.read(self._run)
        newest = facts.last.attempt.number if facts.last else 0
        before = [log for log in self._read if log.attempt is None or log.attempt >= newest - 1]
        return list(dict.fromkeys([*before, *self._there(facts)]))

    def _there(self, facts: RunFacts) -> list[Log]:
        try:
            found = _chosen(self._run, facts, self._choice)
        except (RunError, UsageError):
            if not self._begun and facts.last is not None:
                raise
            return []  # what has not begun has no logs yet
        return [log for log in found if log.path.is_file()]

    def _new(self, log: Log, *, rest: bool) -> str:
        with log.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._read[log]:
                self._read[log] = 0  # it was begun anew
            file.seek(self._read[log])
            added = file.read()
        whole = added if rest else added[: added.rfind(b"\n") + 1]
        self._read[log] += len(whole)
        return whole.decode(errors="replace")
