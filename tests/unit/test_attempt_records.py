"""Records of attempts: what is written is read back, by this version and by others, and says what happened."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hpc_tune.attempt import (
    Attempt,
    AttemptRecord,
    Cancellation,
    Head,
    NodeRecord,
    Outcome,
    SlurmJob,
    Submission,
)

NODES = ("iris-169", "iris-170", "iris-171", "iris-172")
JOB = SlurmJob("4711", 2, "iris", "gpu", NODES)
RECORDS = [
    Outcome("interrupted", "the walltime is near", exit_code=1, ended=1.5, hint="see ü", cause="walltime"),
    Outcome("completed", "all trials have ended"),
    JOB,
    AttemptRecord("slurm", "iris-169", 28, 4, nodes=4, min_nodes=2, started=1.0, job=JOB, phases={"gcs_up": 2.5}),
    AttemptRecord("local", "here", 2.0, 0.5),
    NodeRecord("iris-170", 1, "failed", 1.0, up=2.0, cpus=28, gpus=4, address="10.77.0.12", reason='it said "no"'),
    NodeRecord("iris-171", 2, "starting", 1.0),
    Head("10.77.0.11:20001", "iris-169", 3.0),
    Submission("4711", "iris", 1.0, "submit"),
    Cancellation("ada", "access1", 4.0),
]


def kind(record: Any) -> str:
    return type(record).__name__


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    path = tmp_path / "digits-1/attempts/001"
    path.mkdir(parents=True)
    return Attempt(path)


@pytest.mark.parametrize("record", RECORDS, ids=kind)
def test_what_is_written_is_read_back(record: Any, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record.write(path)
    assert type(record).read(path) == record
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("record", RECORDS, ids=kind)
def test_keys_of_a_later_version_are_passed_over(record: Any, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record.write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"energy": 12, "job_kind": None}))
    assert type(record).read(path) == record


def test_a_later_version_may_say_more_of_the_job(tmp_path: Path) -> None:
    path = tmp_path / "attempt.json"
    record = AttemptRecord("slurm", "iris-169", 28, 4, job=JOB)
    record.write(path)
    written = json.loads(path.read_text())
    written["job"]["qos"] = "high"
    path.write_text(json.dumps(written))
    assert AttemptRecord.read(path) == record


@pytest.mark.parametrize("text", ["", "{", '{"ending": "comp', "[]", "null", "{}", '{"hint": "x"}', "\0\0\0"])
@pytest.mark.parametrize("record", [Outcome, AttemptRecord, NodeRecord, Head, SlurmJob, Submission, Cancellation])
def test_half_a_record_is_none(record: Any, text: str, tmp_path: Path) -> None:
    """A disk may be full, a copy may be cut: whoever reads goes on without."""
    path = tmp_path / "record.json"
    path.write_text(text)
    assert record.read(path) is None
    assert record.read(tmp_path / "missing.json") is None


def test_an_attempt_whose_records_are_damaged_can_be_looked_at(attempt: Attempt) -> None:
    attempt.nodes_dir.mkdir()
    NodeRecord("iris-171", 2, "up", 1.0, up=2.0).write(attempt.node_file("iris-171"))
    NodeRecord("iris-169", 0, "up", 1.0, up=2.0).write(attempt.node_file("iris-169"))
    attempt.node_file("iris-170").write_text('{"name": "iris-170", "ra')
    attempt.record_file.write_text("{}")
    assert [node.name for node in attempt.nodes()] == ["iris-169", "iris-171"]  # by rank
    assert attempt.record() is None
    assert attempt.outcome() is None


def test_an_attempt_begins_with_a_secret_of_its_own(attempt: Attempt, tmp_path: Path) -> None:
    record = AttemptRecord("local", "here", 2, 0)
    attempt.begin(record)
    assert attempt.record() == record
    assert attempt.token_file.stat().st_mode & 0o777 == 0o600
    secret = attempt.token_file.read_text()
    assert len(secret) == 64
    with pytest.raises(FileExistsError):
        attempt.begin(record)  # two would share a cluster
    other = Attempt(attempt.path.with_name("002"))
    other.path.mkdir()
    other.begin(record)
    assert other.token_file.read_text() != secret


def test_the_first_outcome_counts(attempt: Attempt) -> None:
    """The driver knows best, and comes first."""
    attempt.end(Outcome("completed", "all trials have ended"))
    attempt.end(Outcome("failed", "the driver ended with exit code 1", exit_code=1))
    outcome = attempt.outcome()
    assert outcome is not None
    assert (outcome.ending, outcome.reason) == ("completed", "all trials have ended")
    assert outcome.ended > 1e9


# ------------------------------------------------------------------------------- sentences


def with_nodes(attempt: Attempt, job: SlurmJob | None, **reasons: str | None) -> Attempt:
    """Write an attempt over four nodes, of which those given have shown themselves: with a reason, they failed."""
    attempt.begin(AttemptRecord("slurm", "iris-169", 28, 4, nodes=4, job=job))
    attempt.nodes_dir.mkdir()
    for rank, (key, reason) in enumerate(reasons.items()):
        name = key.replace("_", "-")
        up = 2.0 if reason is None else None
        state: Any = "up" if reason is None else "failed" if reason else "starting"
        NodeRecord(name, rank, state, 1.0, up=up, reason=reason or "").write(attempt.node_file(name))
    return attempt


def test_nodes_that_are_missing_are_named(attempt: Attempt) -> None:
    with_nodes(attempt, JOB, iris_169=None, iris_170=None, iris_171=None)
    assert attempt.joined_sentence(60.3) == "3 of 4 nodes after 60 s; missing iris-172"


def test_with_what_they_said(attempt: Attempt) -> None:
    with_nodes(attempt, JOB, iris_169=None, iris_170="/tmp has 5 MB free; Ray needs 100 MB", iris_171="")
    assert attempt.joined_sentence(60.3) == (
        "1 of 4 nodes after 60 s; missing iris-170 (/tmp has 5 MB free; Ray needs 100 MB), iris-171, iris-172"
    )


def test_all_are_there(attempt: Attempt) -> None:
    with_nodes(attempt, JOB, iris_169=None, iris_170=None, iris_171=None, iris_172=None)
    assert attempt.joined_sentence(7.25) == "4 of 4 nodes after 7 s"


def test_without_the_names_of_all(attempt: Attempt) -> None:
    with_nodes(attempt, SlurmJob("4711"), iris_169=None, iris_170="")
    assert attempt.joined_sentence(60) == "1 of 4 nodes after 60 s; missing iris-170"


def test_nobody_has_shown_up(attempt: Attempt) -> None:
    assert attempt.joined_sentence(60) == "0 of 0 nodes after 60 s"
    with_nodes(attempt, JOB)
    assert attempt.joined_sentence(60) == f"0 of 4 nodes after 60 s; missing {', '.join(NODES)}"


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_driver_that_was_killed_can_go_on(attempt: Attempt, number: signal.Signals) -> None:
    outcome = Outcome.of_driver(-number, attempt)
    assert (outcome.ending, outcome.reason) == ("interrupted", f"the driver was ended by {number.name}")
    assert outcome.exit_code == 1


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_driver_that_ended_without_a_word_has_failed(attempt: Attempt, code: int) -> None:
    outcome = Outcome.of_driver(code, attempt)
    assert (outcome.ending, outcome.exit_code) == ("failed", 1)
    assert outcome.reason == f"the driver ended with exit code {code}"
    assert outcome.hint == f"see {attempt.driver_log}"


@pytest.mark.parametrize("code", [1, -signal.SIGBUS])
def test_a_full_disk_is_the_reason_of_whatever_it_looks_like(
    attempt: Attempt, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40, 4096))
    run = attempt.path.parents[1]
    (run.parent / "another").mkdir()
    (run.parent / "another/checkpoint").write_bytes(b"x" * 3_000_000)
    outcome = Outcome.of_driver(code, attempt)
    assert outcome.ending == "failed"
    disk = next(path for path in run.parents if path.is_mount())
    assert outcome.reason == f"no space is left on {disk}, the file system of {run}"
    assert outcome.hint is not None
    assert outcome.hint.startswith(f"make room: {run.parent} holds another (3.0 MB), {run.name} (")
    assert outcome.hint.endswith(f"; then: hpc-tune resume {run}")
    assert Outcome.of_full_disk(attempt, quota=True).reason.startswith(f"the quota on {disk} is used up, ")
