"""Processes of this machine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["end_session", "is_alive"]

_DEADLINE = 10.0
_PAUSE = 0.02


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits to be reaped does not."""
    stat = _stat(pid)
    return stat is not None and stat[0] not in "ZX"


def end_session(session: int) -> None:
    """Kill whatever is left of a session that we started: nobody in it has anyone to report to any more.

    Ray's processes notice within seconds or minutes that their driver was killed; until then they hold its memory
    and its trials go on writing.
    """
    deadline = time.monotonic() + _DEADLINE
    while (members := list(_members(session))) and time.monotonic() < deadline:
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE)  # the kernel tells only a parent when a process is gone


def _members(session: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        stat = _stat(int(entry.name)) if entry.name.isdigit() else None
        if stat is not None and stat[3] == str(session) and stat[0] not in "ZX":
            yield int(entry.name)


def _stat(pid: int) -> list[str] | None:
    """Return the fields of proc(5)'s stat from the state on: state, parent, group, session and so on."""
    try:
        # the command's name stands before them and may itself hold spaces and parentheses
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()
    except OSError:
        return None
