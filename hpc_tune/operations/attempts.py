"""A run's attempts one by one: how each went, what it achieved, which of its nodes were trouble."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from hpc_tune.attempt import Attempt, AttemptRecord, Head, NodeRecord
from hpc_tune.operations.facts import AttemptFacts, RunFacts, SlurmView
from hpc_tune.operations.standing import RunState, Standing, cancellation, unrecorded_end
from hpc_tune.slurm.commands import JobInfo
from hpc_tune.slurm.nodelist import expand_nodes

__all__ = ["AttemptStatus", "NodeStatus", "nodes", "phases", "story"]


@dataclass(frozen=True)
class AttemptStatus:
    """One attempt."""

    number: int
    state: RunState
    reason: str
    job_id: str | None
    restart_count: int
    started: float | None
    ended: float | None
    """None while it is live; else also the last sign of life of one that could not say when it ended."""
    gap: float | None
    """Seconds between the end of the one before and its start."""
    iterations: int
    """Results that it reported."""
    finished: int
    """Trials that ended in it, well or not."""
    lost: tuple[str, ...] = ()
    """Its nodes that failed, did not come, or fell silent; empty while it is live."""


def story(facts: RunFacts, view: SlurmView, standing: Standing) -> tuple[AttemptStatus, ...]:
    """Return the attempts, oldest first."""
    return tuple(_told(facts, view, standing))


def _told(facts: RunFacts, view: SlurmView, standing: Standing) -> Iterator[AttemptStatus]:
    ended: float | None = None
    finished = 0
    for each in facts.attempts:
        live = standing.at_work and each is facts.last
        state, reason = (standing.state, standing.reason) if live else _end(facts, each, view)
        states = each.progress.states if each.progress else {}
        finished_now = states.get("TERMINATED", 0) + states.get("ERROR", 0) if states else finished
        yield AttemptStatus(
            number=each.attempt.number,
            state=state,
            reason=reason,
            job_id=each.job.job_id if each.job else None,
            restart_count=each.job.restart_count if each.job else 0,
            started=each.started,
            ended=None if live else each.ended,
            gap=each.started - ended if ended is not None and each.started is not None else None,
            iterations=each.progress.iterations if each.progress else 0,
            finished=max(0, finished_now - finished),
            lost=() if live else tuple(node.name for node in nodes(each, None, at_work=False) if node.is_trouble),
        )
        ended, finished = each.ended, finished_now


def _end(facts: RunFacts, each: AttemptFacts, view: SlurmView) -> tuple[RunState, str]:
    """Say how an attempt ended that is not at work."""
    went_on = any(later.job and each.job and later.job.job_id == each.job.job_id for later in _later(facts, each))
    cancelled = None if went_on else cancellation(facts, each)
    if each.outcome is not None:
        ended = RunState(each.outcome.ending)
        return (ended if ended is RunState.COMPLETED or cancelled is None else RunState.CANCELLED), each.outcome.reason
    if went_on and each.job is not None:
        return RunState.INTERRUPTED, f"Slurm ended job {each.job.job_id} and started it again before it could save"
    return unrecorded_end(each, view.jobs.get(each.job.job_id) if each.job else None, cancelled)


def _later(facts: RunFacts, each: AttemptFacts) -> tuple[AttemptFacts, ...]:
    return facts.attempts[facts.attempts.index(each) + 1 :]


@dataclass(frozen=True)
class NodeStatus:
    """One node of an attempt."""

    name: str
    state: str
    """That of its record; or ``missing``: Slurm granted it, and its agent has not shown itself; or ``lost``: it had
    joined and is gone without a word."""
    reason: str
    log: Path | None
    """What its agent and Ray said, if they said anything."""

    @property
    def is_trouble(self) -> bool:
        """Whether it failed or did not come."""
        return self.state in ("failed", "lost", "missing")


def nodes(each: AttemptFacts, job: JobInfo | None, *, at_work: bool) -> tuple[NodeStatus, ...]:
    """Return the nodes of an attempt on Slurm: those that have shown themselves, then those that have not.

    Args:
        each: the attempt.
        job: its job as Slurm sees it, which names the nodes where the attempt's own record cannot.
        at_work: whether the attempt is live: then a node may still come.
    """
    if each.record is None or each.record.job is None:
        return ()
    attempt, shown = each.attempt, each.attempt.nodes()
    granted = each.record.job.nodes or expand_nodes(job.node_list if job else "")
    missing = [name for name in granted if name not in {node.name for node in shown}]
    unnamed = max(0, each.record.nodes - len(shown) - len(missing))
    return (
        *(_shown(attempt, node, each.progress.lost if each.progress else (), at_work=at_work) for node in shown),
        *(NodeStatus(name, "missing", _absence(at_work), _log(attempt, name)) for name in missing),
        *(NodeStatus("?", "missing", _absence(at_work), None) for _ in range(unnamed)),
    )


def _shown(attempt: Attempt, node: NodeRecord, lost: Collection[str], *, at_work: bool) -> NodeStatus:
    log = _log(attempt, node.name)
    if node.state == "up" and (node.address in lost or not at_work):
        return NodeStatus(node.name, "lost", "it has fallen silent", log)
    if node.state == "starting" and not at_work:
        return NodeStatus(node.name, "failed", node.reason or "it did not join before the attempt ended", log)
    return NodeStatus(node.name, node.state, node.reason, log)


def _absence(at_work: bool) -> str:
    return "its agent has not shown itself" + (" yet" if at_work else "")


def _log(attempt: Attempt, name: str) -> Path | None:
    log = attempt.node_log(name)
    return log if log.exists() else None


def phases(each: AttemptFacts) -> dict[str, float]:
    """Return what an attempt had reached how many seconds after its job began, in that order.

    A live attempt's are in the records of its nodes and its driver; its own record gets them at its end.
    """
    if each.record is None or each.started is None:
        return {}
    began, record = each.started, each.record
    reached = _of_nodes(each.attempt, record) | (each.progress.phases if each.progress else {}) | record.phases
    return {name: when - began for name, when in sorted(reached.items(), key=lambda item: item[1])}


def _of_nodes(attempt: Attempt, record: AttemptRecord) -> dict[str, float]:
    head = Head.read(attempt.head_file)
    ups = {each.name: each.up for each in attempt.nodes() if each.up is not None}
    reached = {"gcs_up": head.up} if head else {}
    reached |= {f"{name} up": up for name, up in ups.items()}
    return reached | ({"nodes_up": max(ups.values())} if record.job and len(ups) >= record.nodes else {})
