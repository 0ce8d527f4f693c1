"""The only way the sandbox waits: for a condition, up to a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from .errors import SandboxTimeoutError

__all__ = ["wait_until"]

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, seconds: float, interval: float = 0.05) -> T:
    """Return the condition's first true value.

    The condition may raise to end the wait early, for instance because a daemon died. It is asked once more after
    the deadline, so that a long call does not eat the last chance. The pauses grow from `interval` to ten times it.

    Raises:
        SandboxTimeoutError: `what` did not become true within `seconds`.
    """
    deadline = time.monotonic() + seconds
    pause, never = interval, threading.Event()
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise SandboxTimeoutError(f"Waited {seconds:g} s in vain: {what}.")
        never.wait(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(pause * 1.3, interval * 10)
    return value
