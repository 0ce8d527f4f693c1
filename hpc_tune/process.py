"""Processes of this machine."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Collection, Container, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["MARK", "adopt_orphans", "descendants", "end_descendants", "end_marked", "end_with_parent", "is_alive"]

MARK = "HPC_TUNE_ATTEMPT"
"""The environment variable that all processes of an attempt bear; its value is the attempt's directory."""

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_CHILD_SUBREAPER = 36
_DEADLINE = 10.0
_PAUSE = 0.02


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits to be reaped does not."""
    stat = _stat(pid)
    return stat is not None and stat[0] not in "ZX"


def end_with_parent() -> None:
    """Have SIGTERM sent to this process when the one that started it dies, however that comes."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died while we asked
        signal.raise_signal(signal.SIGTERM)


def adopt_orphans() -> None:
    """Become the parent of what this process's children leave behind, so that it stays among the descendants."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def descendants() -> set[int]:
    """Return this process's children and theirs."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))) is not None:
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found, new = set[int](), [os.getpid()]
    while new:
        new = [child for parent in new for child in children.get(parent, [])]
        found.update(new)
    return found


def end_descendants(spared: Collection[int]) -> None:
    """Kill and reap this process's children and theirs, save some."""
    deadline = time.monotonic() + _DEADLINE
    while (found := descendants().difference(spared)) and time.monotonic() < deadline:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in found:
            with suppress(ChildProcessError):  # another one's child, which is ours as soon as that one is gone
                os.waitpid(pid, os.WNOHANG)
        time.sleep(_PAUSE)


def end_marked(value: str, sessions: Iterable[int] = ()) -> None:
    """Kill whatever bears the mark of an attempt: nobody in it has anyone to report to any more.

    Ray's processes notice within seconds or minutes that their driver was killed; until then they hold its memory
    and its trials go on writing. The mark is an environment variable, which passes on to processes that leave the
    session, the process group, or what Slurm tracks. Ray's agents lose it when they write their title over it: they
    are known by the session that they share with those that bear it.

    Args:
        value: the mark's value.
        sessions: those of processes that the caller has started and that may have ended.
    """
    ours = set(sessions)
    deadline = time.monotonic() + _DEADLINE
    while (found := list(_bearers(value, ours))) and time.monotonic() < deadline:
        for pid, session in found:
            ours.add(session)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE)  # the kernel tells only a parent when a process is gone


def _bearers(value: str, sessions: Container[int]) -> Iterator[tuple[int, int]]:
    """Yield the number and the session of each process that is to be ended."""
    mark = os.fsencode(f"{MARK}={value}")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # gone, or somebody else's
            continue
        stat = _stat(int(entry.name))
        if stat is None or stat[0] in "ZX":
            continue
        session = int(stat[3])
        overwritten = not variables[0].strip()
        if mark in variables or (overwritten and session in sessions):
            yield int(entry.name), session


def _stat(pid: int) -> list[str] | None:
    """Return the fields of proc(5)'s stat from the state on: state, parent, group, session and so on."""
    try:
        # the command's name stands before them and may itself hold spaces and parentheses
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()
    except OSError:
        return None
