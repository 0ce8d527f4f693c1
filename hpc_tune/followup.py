"""Follow-ups: what is done with a run's results in a job or process of its own, and the records that each leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from hpc_tune.attempt import Cancellation, Record, Submission

__all__ = ["Executor", "FollowUp", "FollowUpOutcome", "FollowUpRecord", "Kind"]

Kind = Literal["evaluate", "replay", "collect", "report"]
Executor = Literal["slurm", "local", "here"]
"""A Slurm job; a process of its own on this machine; the process of the command."""


@dataclass(frozen=True)
class FollowUpRecord(Record):
    """What a follow-up is to do; written once, before it is sent."""

    kind: Kind
    executor: Executor
    host: str
    """Where the command was typed; where it runs, if that is not a Slurm job."""
    created: float
    runs: tuple[str, ...]
    """The directories of the runs that it is about; the first one keeps the record."""
    after: tuple[str, ...] = ()
    """Those of the runs that have to be over before."""
    arguments: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    """What submitit is told of the Slurm job."""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Return the record, its runs as tuples."""
        return super().from_json({**record, **{key: tuple(record.get(key, ())) for key in ("runs", "after")}})


@dataclass(frozen=True)
class FollowUpOutcome(Record):
    """How a follow-up ended; written by itself alone."""

    ok: bool
    started: float
    ended: float
    reason: str = ""
    """Why it failed, in a sentence."""
    hint: str | None = None
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FollowUp:
    """One follow-up of a run.

    ```text
    followups/001-evaluate/
      record.json         what it is to do, and for which runs
      sent/4711.json      of each Slurm job or process: when it was sent; the newest counts
      outcome.json        how it ended, with its result
      error.txt           the traceback, where the user's function failed
      cancelled           who ended it; absent where nobody did
      submitit/           submitit's own files: the job's script, its log, the pickled call
    ```
    """

    path: Path

    @classmethod
    def of_run(cls, run: Path) -> list[Self]:
        """Return the follow-ups of the run in a directory, oldest first."""
        return [cls(path) for path in sorted((run / "followups").glob("[0-9][0-9][0-9]-*"))]

    @classmethod
    def create(cls, run: Path, kind: Kind) -> Self:
        """Make the folder of the run's next follow-up. Two callers at once get two folders."""
        folder = run / "followups"
        folder.mkdir(mode=0o700, exist_ok=True)
        number = len(cls.of_run(run)) + 1
        while True:
            made = cls(folder / f"{number:03d}-{kind}")
            try:
                made.path.mkdir(mode=0o700)
            except FileExistsError:
                number += 1
            else:
                break
        made.sent_dir.mkdir(mode=0o700)
        return made

    @property
    def name(self) -> str:
        """Its number and kind."""
        return self.path.name

    @property
    def record_file(self) -> Path:
        """What it is to do."""
        return self.path / "record.json"

    @property
    def outcome_file(self) -> Path:
        """How it ended; absent while it is live, or when nobody was left to write it."""
        return self.path / "outcome.json"

    @property
    def error_file(self) -> Path:
        """The traceback of the user's function; absent where it did not fail."""
        return self.path / "error.txt"

    @property
    def cancel_file(self) -> Path:
        """By whom it was ended; absent where nobody did."""
        return self.path / "cancelled"

    @property
    def sent_dir(self) -> Path:
        """The jobs or processes that were started for it."""
        return self.path / "sent"

    @property
    def submitit_dir(self) -> Path:
        """Where submitit keeps what it needs."""
        return self.path / "submitit"

    def log(self, job_id: str) -> Path:
        """What a job or process said; submitit names it so."""
        return self.submitit_dir / f"{job_id}_0_log.out"

    def record(self) -> FollowUpRecord | None:
        """Return what it is to do, or None before that is written."""
        return FollowUpRecord.read(self.record_file)

    def outcome(self) -> FollowUpOutcome | None:
        """Return how it ended, or None when that is not on record."""
        return FollowUpOutcome.read(self.outcome_file)

    def cancellation(self) -> Cancellation | None:
        """Return who ended it, or None."""
        return Cancellation.read(self.cancel_file)

    def sent(self) -> Submission | None:
        """Return the newest job or process that was started for it."""
        found = (Submission.read(path) for path in self.sent_dir.glob("*.json"))
        return max((each for each in found if each is not None), key=lambda each: each.submitted, default=None)

    def put_on_record(self, sent: Submission) -> None:
        """Put a job or process on record."""
        sent.write(self.sent_dir / f"{sent.job_id}.json")
