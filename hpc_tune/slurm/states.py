"""Slurm's words for the state of a job and for why it waits, as an enum and as sentences.

State codes are those of squeue(1) and sacct(1), reasons those of the page "Job reason codes" of Slurm's documentation.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["JobState", "reason_sentence"]


class JobState(Enum):
    """What Slurm does with a job. A word that this version does not know is ``UNKNOWN``, never an end."""

    PENDING = "PENDING"
    CONFIGURING = "CONFIGURING"
    """It has its nodes, which are still being prepared."""
    RUNNING = "RUNNING"
    COMPLETING = "COMPLETING"
    """Its processes are being ended; how it ended is not yet known."""
    REQUEUED = "REQUEUED"
    REQUEUE_HOLD = "REQUEUE_HOLD"
    SPECIAL_EXIT = "SPECIAL_EXIT"
    """Requeued and held, because it ended with an exit code that the site treats so."""
    SUSPENDED = "SUSPENDED"
    STOPPED = "STOPPED"
    RESIZING = "RESIZING"
    SIGNALING = "SIGNALING"
    STAGE_OUT = "STAGE_OUT"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    PREEMPTED = "PREEMPTED"
    NODE_FAIL = "NODE_FAIL"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    BOOT_FAIL = "BOOT_FAIL"
    DEADLINE = "DEADLINE"
    LAUNCH_FAILED = "LAUNCH_FAILED"
    REVOKED = "REVOKED"
    UNKNOWN = "UNKNOWN"

    @classmethod
    def parse(cls, text: str) -> JobState:
        """Return the state that squeue or sacct wrote, ``CANCELLED by 1000`` and ``OUT_OF_ME+`` included."""
        word = text.split(maxsplit=1)[0].upper() if text.strip() else ""
        if word.endswith("+"):
            cut = word.rstrip("+")
            return next((state for state in cls if cut and state.value.startswith(cut)), cls.UNKNOWN)
        return cls.__members__.get(word, cls.UNKNOWN)

    @property
    def is_final(self) -> bool:
        """Whether the job will never run again."""
        return self in _FINAL

    @property
    def is_live(self) -> bool:
        """Whether the job waits, runs, or is about to end; neither this nor final is what is unknown."""
        return self is not JobState.UNKNOWN and not self.is_final

    @property
    def is_pending(self) -> bool:
        """Whether the job waits for nodes, for the first time or again."""
        return self in _PENDING


_FINAL = frozenset({
    JobState.COMPLETED, JobState.FAILED, JobState.TIMEOUT, JobState.CANCELLED, JobState.PREEMPTED, JobState.NODE_FAIL,
    JobState.OUT_OF_MEMORY, JobState.BOOT_FAIL, JobState.DEADLINE, JobState.LAUNCH_FAILED, JobState.REVOKED,
})  # fmt: skip
_PENDING = frozenset({JobState.PENDING, JobState.REQUEUED, JobState.REQUEUE_HOLD, JobState.SPECIAL_EXIT})


def reason_sentence(code: str) -> str:
    """Return Slurm's reason code as a sentence; empty where there is none, the code itself where it is new to us."""
    word = code.strip().strip("()")
    if word in ("", "None", "N/A"):
        return ""
    return word
