"""The exceptions that a user meets: one tree, one exit code each.

```text
HpcTuneError            1  something failed
├── UsageError          2  the command line is wrong
├── FaultyFile          2  a file is wrong; carries every fault found
│   ├── ExperimentError    the experiment file
│   └── SiteError          a site profile
├── FaultyFiles         2  several files are wrong
├── RunError            1  a run directory cannot be read or written
│   ├── RunNotFound     3
│   └── RunBusy         3  somebody else is at work in it
├── SlurmError          4  Slurm refused or is missing
└── TrialsFailed        5  the search ended, but its trials failed
```

The message says what happened and where; the hint says what to type next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

__all__ = [
    "ExperimentError",
    "Fault",
    "FaultyFile",
    "FaultyFiles",
    "HpcTuneError",
    "RunBusy",
    "RunError",
    "RunNotFound",
    "SiteError",
    "SlurmError",
    "TrialsFailed",
    "UsageError",
    "refuse",
]


class HpcTuneError(Exception):
    """Something that the user can understand and act on; never shown with a traceback."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(HpcTuneError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a file: the dotted key, what was expected, what to write instead."""

    key: str
    problem: str
    suggestion: str | None = None

    def __str__(self) -> str:
        text = f"{self.key}: {self.problem}" if self.key else self.problem
        return f"{text}; {self.suggestion}" if self.suggestion else text


class FaultyFile(HpcTuneError):
    """A file cannot be used as it is written. All its faults come in one answer."""

    exit_code = 2

    def __init__(self, source: Path | str, faults: Sequence[Fault], *, hint: str | None = None) -> None:
        self.source = source
        self.faults = tuple(faults)
        head = f"{source}: {len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}"
        super().__init__("\n".join([head, *(f"  {fault}" for fault in self.faults)]), hint=hint)


class ExperimentError(FaultyFile):
    """An experiment cannot be used as it is written, or not here."""


class FaultyFiles(HpcTuneError):
    """Several files cannot be used as they are written."""

    exit_code = 2


def refuse(faulty: Sequence[FaultyFile]) -> None:
    """Raise what is wrong with files, all of it at once; return if nothing is."""
    if len(faulty) == 1:
        raise faulty[0]
    if faulty:
        raise FaultyFiles("\n".join(each.message for each in faulty))


class SiteError(FaultyFile):
    """A site profile cannot be used as it is written."""


class RunError(HpcTuneError):
    """A run directory cannot be created, read or written."""


class RunNotFound(RunError):
    """No run answers to that name."""

    exit_code = 3


class RunBusy(RunError):
    """The run is live, or another command is at work in it."""

    exit_code = 3


class SlurmError(HpcTuneError):
    """Slurm refused the request, or its commands are missing.

    Attributes:
        outcome_unknown: whether Slurm may have done what was asked all the same: it did not answer in time.
    """

    exit_code = 4

    def __init__(self, message: str, *, hint: str | None = None, outcome_unknown: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.outcome_unknown = outcome_unknown


class TrialsFailed(HpcTuneError):
    """The search ended by itself, but trials ended in errors."""

    exit_code = 5
