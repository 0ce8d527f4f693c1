"""The guardian of a node agent: it clears up behind an agent that was killed and could not."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpc_tune.process import end_marked

__all__ = ["guarded"]

_DONE = b"."


@contextmanager
def guarded(mark: str, directory: Path) -> Iterator[None]:
    """Should this process be killed within the block, end all that bears a mark, and remove a directory.

    A fork waits for it at the end of a pipe. It must be made before the first thread is.

    Args:
        mark: the value of the mark that the attempt's processes bear.
        directory: what to remove.
    """
    reading, writing = os.pipe()
    guardian = os.fork()
    if guardian == 0:
        try:
            os.close(writing)
            _guard(reading, mark, directory)
        finally:
            os._exit(0)
    os.close(reading)
    try:
        yield
    finally:
        with suppress(BrokenPipeError):  # somebody has killed the guardian
            os.write(writing, _DONE)
        os.close(writing)
        os.waitpid(guardian, 0)


def _guard(pipe: int, mark: str, directory: Path) -> None:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):  # Slurm's go to all processes
        signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):  # Slurm waits until nobody has the step's output open
        os.dup2(nowhere, standard)
    if os.read(pipe, 1) != _DONE:
        end_marked(mark)
        shutil.rmtree(directory, ignore_errors=True)
