"""The guardian of a node agent: it clears up behind an agent that was killed and could not.

It is the process that Slurm starts, and the agent is its child: when the process that Slurm has started ends, Slurm
kills what else there is of the job step on that node, whoever had something left to do.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from hpc_tune.process import end_marked, end_with_parent

__all__ = ["Guardian", "split_off_guardian"]


class Guardian:
    """The agent's end of a pipe to its guardian; without one, nobody listens."""

    def __init__(self, pipe: int | None = None) -> None:
        self._pipe = pipe
        self._pid = os.getppid()

    @property
    def is_gone(self) -> bool:
        """Whether somebody has killed it; this process then gets a SIGTERM that is not Slurm's."""
        return self._pipe is not None and os.getppid() != self._pid

    @contextmanager
    def watching(self, mark: str, directory: Path) -> Iterator[None]:
        """Should this process be killed within the block, all that bears the mark ends, and the directory goes."""
        self._tell([mark, str(directory)])
        try:
            yield
        finally:
            self._tell([])

    def _tell(self, care_for: list[str]) -> None:
        if self._pipe is not None:
            with suppress(BrokenPipeError):  # somebody has killed the guardian
                os.write(self._pipe, json.dumps(care_for).encode() + b"\n")


def split_off_guardian() -> Guardian:
    """Return in a child process; this one waits for its end, clears up if need be, and exits with its exit code."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        sys.exit(_guard(child, reading))
    os.close(reading)
    end_with_parent()
    return Guardian(writing)


def _guard(child: int, pipe: int) -> int:
    def pass_on(number: int, frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, pass_on)
    with os.fdopen(pipe, "rb") as told:
        care_for = json.loads([b"[]", *told.read().splitlines()][-1])  # read until the child is gone
    _, status = os.waitpid(child, 0)
    if care_for:
        mark, directory = care_for
        end_marked(mark)
        shutil.rmtree(directory, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
