"""What the sandbox raises; every message is written for the person who typed the command.

```text
SandboxError                  something went wrong; exit code 1
├── SandboxUnavailableError   this machine or user cannot run a sandbox (yet); exit code 2
├── SandboxConfigError        settings that cannot work; exit code 2
└── SandboxTimeoutError       a deadline passed
```
"""

from __future__ import annotations

__all__ = ["SandboxConfigError", "SandboxError", "SandboxTimeoutError", "SandboxUnavailableError"]


class SandboxError(Exception):
    """Say what happened and what to type next.

    Args:
        message: What happened.
        hint: What to do about it, as a sentence or a command; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}\n{hint}" if hint else message)
        self.message = message
        self.hint = hint


class SandboxUnavailableError(SandboxError):
    """A sandbox cannot run here, for lack of root or of packages; tests may skip on it."""

    exit_code = 2


class SandboxConfigError(SandboxError):
    """The settings cannot work; the message names every fault."""

    exit_code = 2


class SandboxTimeoutError(SandboxError):
    """Something that was awaited did not come before its deadline."""
