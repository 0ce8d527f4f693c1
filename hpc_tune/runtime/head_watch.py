"""Whether the head is still there, as a worker node sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from hpc_tune.attempt import Attempt, Head
from hpc_tune.durable import is_listed
from hpc_tune.runtime.network import answers

__all__ = ["HEAD_SILENCE", "HeadWatch"]

HEAD_SILENCE = 15.0
"""Seconds without an answer from the head after which it counts as out of reach."""
_DRIVER_SILENCE = 20.0
"""Seconds without a sign of life from the driver, which gives one every second, after which its node is lost."""


class HeadWatch:
    """Tells a head that is lost from one that only this node cannot reach: there the driver goes on writing."""

    def __init__(
        self,
        attempt: Attempt,
        head: Head,
        *,
        answers: Callable[[str], bool] = answers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._attempt = attempt
        self._head = head
        self._answers = answers
        self._clock = clock
        self._heard = self._written = clock()
        self._progress = b""

    def look(self) -> Literal["there", "out of reach", "lost"]:
        """Ask the head for an answer and, if it is silent for long, the shared directory for its driver's."""
        if self._answers(self._head.address):
            self._heard = self._written = self._clock()
            return "there"
        if (progress := self._read()) != self._progress:
            self._progress, self._written = progress, self._clock()
        now = self._clock()
        if now - self._heard <= HEAD_SILENCE:
            return "there"
        if now - self._written > _DRIVER_SILENCE:
            return "lost"
        # what was written at the beginning of the silence proves nothing
        return "out of reach" if self._written - self._heard > HEAD_SILENCE / 2 else "there"

    def _read(self) -> bytes:
        path = self._attempt.progress_file
        try:
            return path.read_bytes() if is_listed(path) else b""
        except OSError:  # just being replaced
            return self._progress
