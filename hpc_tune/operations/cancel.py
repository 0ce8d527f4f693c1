"""End whatever is live of a run, so that it can be resumed."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from hpc_tune.attempt import Cancellation, Outcome, SlurmJob
from hpc_tune.errors import RunBusy, RunError, SlurmError
from hpc_tune.line import TURN, hand_over, handed_to, waiting_behind, waits
from hpc_tune.operations.facts import AttemptFacts, RunFacts
from hpc_tune.operations.followups import Canceller, end_follow_ups
from hpc_tune.process import is_alive
from hpc_tune.run import RunDir, user_name
from hpc_tune.slurm.client import Slurm
from hpc_tune.slurm.commands import JobInfo

__all__ = ["Cancelled", "cancel"]

CONFIRMED = 20.0
"""Seconds within which Slurm should say that a job that it was told to end is over."""

_PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between two questions to slurmctld; the last one repeats."""


@dataclass(frozen=True)
class Cancelled:
    """What was ended."""

    run: RunDir
    waiting: tuple[str, ...] = ()
    """Jobs that had not begun."""
    running: tuple[str, ...] = ()
    """Jobs that ran."""
    process: str | None = None
    """The driver on this machine that was ended."""
    outcome: Outcome | None = None
    """How the attempt that was at work ended, if it could still say so."""
    left: tuple[str, ...] = ()
    """Jobs that Slurm still has: they get their last seconds."""
    seconds: float = 0.0
    behind: str | None = None
    """The run behind which it had waited for their job, which goes on without it."""
    goes_on: tuple[str, ...] = ()
    """Runs that its jobs go on with, since they waited behind it."""
    followups: tuple[str, ...] = ()
    """Follow-ups that waited or ran, by name."""

    @property
    def is_nothing(self) -> bool:
        """Whether nothing was live."""
        return not (self.waiting or self.running or self.process or self.behind or self.followups)

    @property
    def is_follow_ups_alone(self) -> bool:
        """Whether the run itself was over."""
        return not (self.waiting or self.running or self.process or self.behind)


def cancel(
    run: RunDir,
    *,
    now: bool = False,
    wait: float = 30.0,
    slurm: Canceller | None = None,
    told: Callable[[str], None] = lambda sentence: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Cancelled:
    """End all live jobs of a run, or its driver on this machine, and put on record who did.

    What runs is first asked to save and end, and gets ``wait`` seconds for it. A job that other runs wait for is not
    ended: it goes on with the next of them. The run's follow-ups are ended, too.

    Args:
        run: the run.
        now: end it at once; what has happened since the last checkpoints is lost.
        wait: seconds.
        slurm: who knows about jobs.
        told: is told what goes on while it waits.
        sleep: how to wait.

    Raises:
        RunBusy: if its driver runs on another machine, where nobody here can end it.
        SlurmError: if Slurm cannot be asked, or refuses.
    """
    facts = RunFacts.read(run)
    begun = time.monotonic()
    if facts.ahead is not None and _leave_line(run):
        followups = end_follow_ups(run, slurm or Slurm())
        return Cancelled(run, behind=facts.ahead.run.name, followups=tuple(followups))
    ending = _Ending(run, slurm or Slurm(), 0.0 if now else wait, told, sleep)
    waiting, running = ending.jobs(facts)
    process = None if waiting or running else ending.process(facts)
    followups = end_follow_ups(run, ending.slurm)
    return Cancelled(
        run,
        waiting=waiting,
        running=running,
        process=process,
        outcome=facts.last.attempt.outcome() if facts.last and facts.last.outcome is None else None,
        left=tuple(ending.left),
        seconds=time.monotonic() - begun,
        goes_on=tuple(name for job_id in (*waiting, *running) if (name := handed_to(run, job_id)) is not None),
        followups=tuple(followups),
    )


def _leave_line(run: RunDir) -> bool:
    """Have a run not get its turn; say whether it was early enough."""
    with run.submit_lock.held() as got:
        if early := got and waits(run):
            _here().write(run.cancel_file(TURN))
    return early


def _candidates(facts: RunFacts) -> list[str]:
    """Return the jobs that may be live: also one whose attempt is complete and which has not ended itself."""
    return facts.kept_job_ids


def _here() -> Cancellation:
    return Cancellation(by=user_name(), host=socket.gethostname(), time=time.time())


@dataclass
class _Ending:
    """One cancellation while it goes on."""

    run: RunDir
    slurm: Canceller
    wait: float
    told: Callable[[str], None]
    sleep: Callable[[float], None]
    left: list[str] = field(default_factory=list)

    def jobs(self, facts: RunFacts) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """End the live jobs; return those that waited and those that ran."""
        live = self._live(_candidates(facts))
        waiting = tuple(job.job_id for job in live if job.state.is_pending)
        running = tuple(job.job_id for job in live if not job.state.is_pending)
        if not live:
            return (), ()
        self._mark([*waiting, *running])  # first: a job that has one starts no successor, nor itself again
        self._end([job for job in live if job.state.is_pending])
        if running and self.wait and self._ask_to_save(facts.last, running):
            self._watch(self.wait, self._end_waiting)
        self._end(self._live(self._job_ids()))
        self._watch(CONFIRMED, self._end_waiting)
        self.left = [job.job_id for job in self._live(self._job_ids())]
        return waiting, running

    def _job_ids(self) -> list[str]:
        """Return the jobs of the run as of now: one that was asked to end may just have sent its successor."""
        return _candidates(RunFacts.read(self.run))

    def _live(self, job_ids: Sequence[str]) -> list[JobInfo]:
        return [job for job in self.slurm.jobs(job_ids).values() if job.state.is_live] if job_ids else []

    def _mark(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            if not self.run.cancel_file(job_id).exists():
                _here().write(self.run.cancel_file(job_id))

    def _end(self, jobs: Sequence[JobInfo]) -> None:
        """Have Slurm end jobs; one that has just ended by itself is no fault."""
        if not jobs:
            return
        self._mark(job.job_id for job in jobs)
        targets = [target for job in jobs if (target := self._target(job))]
        try:
            self.slurm.cancel(targets)
        except SlurmError:
            if live := self._live([job.job_id for job in jobs]):
                for job in live:
                    self.run.cancel_file(job.job_id).unlink(missing_ok=True)
                raise

    def _target(self, job: JobInfo) -> str | None:
        """Return what of a job Slurm is to end: of one that others wait for the run's own step, if it has one yet."""
        if not waiting_behind(self.run):
            return job.job_id
        if job.state.is_pending:
            hand_over(self.run, SlurmJob(job.job_id))
            return None
        last = RunFacts.read(self.run).last
        if last is None or last.record is None or last.job is None or last.job.job_id != job.job_id:
            return None  # the attempt that is about to begin finds the mark
        return last.record.step if last.outcome is None else None

    def _ask_to_save(self, last: AttemptFacts | None, running: Sequence[str]) -> bool:
        """Set the stop marker of the attempt that runs; say whether there is one to wait for."""
        if last is None or last.job is None or last.outcome is not None or last.job.job_id not in running:
            return False
        self.run.stop_marker(last.job.job_id, last.job.restart_count).touch(mode=0o600)
        self.told(
            f"asked attempt {last.attempt.number} in job {last.job.job_id} to save; waiting up to {self.wait:.0f} s"
        )
        return True

    def _watch(self, seconds: float, on_live: Callable[[Sequence[JobInfo]], None]) -> None:
        """Wait until no job is live."""
        deadline = time.monotonic() + seconds
        pauses = iter(_PAUSES)
        pause = 0.0
        while (live := self._live(self._job_ids())) and time.monotonic() < deadline:
            on_live(live)
            pause = next(pauses, pause)
            self.sleep(min(pause, max(0.0, deadline - time.monotonic())))

    def _end_waiting(self, live: Sequence[JobInfo]) -> None:
        """End what waits by now: the job that has put itself back into the queue, or its successor."""
        self._end([job for job in live if job.state.is_pending])

    def process(self, facts: RunFacts) -> str | None:
        """End the driver that runs on this machine without Slurm; return which process it was."""
        last = facts.last
        if last is None or last.job is not None or last.outcome is not None or facts.holder is None:
            return None
        pid = self.run.lock.holder_here()
        if pid is None:
            raise RunBusy(f"{self.run.name} is live elsewhere: {facts.holder}", hint="type the same on that machine")
        if self.wait:
            _signal(pid, signal.SIGTERM)
            self.told(f"asked process {pid} to save; waiting up to {self.wait:.0f} s")
        # after the first signal, which may be refused; the driver takes longer to save than we to write
        _here().write(last.attempt.cancel_file)
        if not (self.wait and self._has_ended(pid, self.wait)):
            _signal(pid, signal.SIGKILL)
        self._has_ended(pid, CONFIRMED)
        return f"process {pid}"

    def _has_ended(self, pid: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while is_alive(pid) and time.monotonic() < deadline:
            self.sleep(0.1)
        return not is_alive(pid)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError:
        raise RunError(f"process {pid} belongs to another user, who alone can end it") from None
