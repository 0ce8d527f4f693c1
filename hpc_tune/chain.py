"""The chain of attempts that follow one another by themselves, and when it must end."""

from __future__ import annotations

from pathlib import Path

from hpc_tune.attempt import Attempt
from hpc_tune.progress import Progress
from hpc_tune.run import RunDir

__all__ = ["chain", "lost_nodes", "reason_to_end"]

MOST_WITHOUT_PROGRESS = 2
"""So many attempts in a row without a single new result end a chain: the next one would not do better."""
_TAIL = 2000


def chain(run: RunDir) -> list[Attempt]:
    """Return the attempts since a person last started or resumed the run, oldest first.

    Those that earlier jobs made are not among them. Times do not tell: the clocks of a login node, which sends a job,
    and of the node that begins its attempt may differ.
    """
    sent = run.submissions()
    manual = [place for place, each in enumerate(sent) if each.by != "successor"]
    earlier = {each.job_id for each in sent[: manual[-1]]} if manual else set()
    attempts = [(attempt, record) for attempt in run.attempts() if (record := attempt.record())]
    ended = [place for place, (_, record) in enumerate(attempts) if record.job and record.job.job_id in earlier]
    return [attempt for attempt, _ in attempts[ended[-1] + 1 if ended else 0 :]]


def reason_to_end(run: RunDir, max_attempts: int) -> str | None:
    """Say why no further attempt should start by itself, or return None when one may."""
    done = chain(run)
    if len(done) >= max_attempts:
        return f"{len(done)} attempts have been made, and max_attempts is {max_attempts}"
    last = done[-MOST_WITHOUT_PROGRESS:]
    if len(last) == MOST_WITHOUT_PROGRESS and not any(_results(attempt) for attempt in last):
        numbers = " and ".join(str(attempt.number) for attempt in last)
        return f"attempts {numbers} brought no new result{_last_words(last[-1].driver_log)}"
    return None


def _results(attempt: Attempt) -> int:
    progress = Progress.read(attempt.progress_file)
    return progress.iterations if progress else 0


def _last_words(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:
        return ""
    return f"; the last words of {log.parent.name}/{log.name}: {lines[-1]}" if lines else ""


def lost_nodes(attempt: Attempt) -> list[str]:
    """Return the nodes that an attempt lost: they failed, or fell silent without a word."""
    if attempt.outcome() is None:
        return []
    return [node.name for node in attempt.nodes() if node.state in ("failed", "up")]
