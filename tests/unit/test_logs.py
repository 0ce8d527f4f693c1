"""Which logs there are, their last lines, and following them over attempts."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hpc_tune.cli import cli
from hpc_tune.errors import RunError, UsageError
from hpc_tune.operations.facts import Patient
from hpc_tune.operations.logs import Choice, find_trial, follow, logs, tail
from hpc_tune.slurm.states import JobState
from tests.unit.made_runs import NODES, FakeSlurm, MadeRun, ended


@pytest.fixture
def made(project: Any, runs_dir: Path) -> MadeRun:
    return MadeRun(project.create_run(runs_dir, num_samples=8))


@pytest.fixture
def on_slurm(made: MadeRun) -> MadeRun:
    """Two attempts, each in a job of its own, with logs of everything."""
    for number, job_id in enumerate(("11", "12"), 1):
        made.submitted(job_id, ago=1000 - number)
        attempt = made.attempt(
            job_id, ago=900 - number, nodes=2, names=NODES[:2], outcome=ended("interrupted", "again")
        )
        made.run.job_log(job_id).write_text(f"batch {number}\n")
        attempt.driver_log.write_text(f"driver {number}\n")
        made.node(attempt, NODES[0], 0, "ended", log=f"node {number}\n")
    made.trial("ab12_00000", output="hello\n")
    made.trial("ab12_00001", output="hello\n", error="ValueError: lr\n")
    return made


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments], prog_name="hpc-tune")


def found(made: MadeRun, **choice: Any) -> list[tuple[str, str, int | None]]:
    return [(log.kind, log.name, log.attempt) for log in logs(made.run, Choice(**choice))]


# ------------------------------------------------------------------------------- choosing


def test_all_logs_of_the_last_attempt(on_slurm: MadeRun) -> None:
    assert found(on_slurm) == [("batch", "12", None), ("node", "iris-169", 2), ("driver", "", 2)]
    assert found(on_slurm, attempt=1) == [("batch", "11", None), ("node", "iris-169", 1), ("driver", "", 1)]


def test_some_logs(on_slurm: MadeRun) -> None:
    assert found(on_slurm, batch=True) == [("batch", "12", None)]
    assert found(on_slurm, driver=True, attempt=1) == [("driver", "", 1)]
    assert found(on_slurm, nodes=("iris-169",)) == [("node", "iris-169", 2)]
    assert found(on_slurm, trial="0") == [("output", "ab12_00000", None)]
    assert found(on_slurm, trial="ab12_00001") == [("output", "ab12_00001", None), ("error", "ab12_00001", None)]


def test_the_log_of_a_job_that_ended_before_its_attempt(on_slurm: MadeRun) -> None:
    on_slurm.submitted("13")
    on_slurm.run.job_log("13").write_text("slurmstepd: error: no such module\n")
    assert found(on_slurm)[0] == ("batch", "13", None)


@pytest.mark.parametrize(
    ("choice", "answer", "hint"),
    [
        ({"attempt": 3}, "has no attempt 3", "it has 2, counted from 1"),
        ({"nodes": ("iris-168",)}, "attempt 2 has no node 'iris-168'", "did you mean 'iris-1"),
        ({"trial": "ab12"}, "trial 'ab12' could be any of ab12_00000, ab12_00001", "type more of it"),
        ({"trial": "ab12_0002"}, "there is no trial 'ab12_0002'", "did you mean 'ab12_0000"),
        ({"trial": "zz"}, "there is no trial 'zz'", "there are 2, such as ab12_00000, ab12_00001"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(
    on_slurm: MadeRun, choice: dict[str, Any], answer: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        logs(on_slurm.run, Choice(**choice))
    assert answer in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_trial_that_printed_nothing(on_slurm: MadeRun) -> None:
    on_slurm.trial("ab12_00002", error="ValueError: no data\n")
    on_slurm.trial("ab12_00003")
    assert found(on_slurm, trial="2") == [("error", "ab12_00002", None)]
    with pytest.raises(RunError, match="trial ab12_00003 has printed nothing so far") as caught:
        logs(on_slurm.run, Choice(trial="3"))
    assert "hpc-tune collect" in str(caught.value.hint)


def test_a_node_that_has_no_log_yet(on_slurm: MadeRun) -> None:
    with pytest.raises(RunError, match=r"nodes/iris-170\.log is not there \(yet\)"):
        logs(on_slurm.run, Choice(nodes=("iris-170",)))


def test_a_run_on_this_machine_has_no_batch_log(made: MadeRun) -> None:
    attempt = made.attempt(outcome=ended("completed", "all have ended"))
    attempt.driver_log.write_text("driver\n")
    assert found(made) == [("driver", "", 1)]
    with pytest.raises(UsageError, match="attempt 1 ran without Slurm"):
        logs(made.run, Choice(batch=True))


def test_a_run_without_logs(made: MadeRun) -> None:
    for choice in (Choice(), Choice(driver=True)):
        with pytest.raises(RunError, match="has not begun: it has no logs yet"):
            logs(made.run, choice)
    with pytest.raises(UsageError) as caught:
        logs(made.run, Choice(trial="1"))
    assert caught.value.hint == "no trial has started yet"
    made.submitted("12")
    with pytest.raises(RunError, match=r"jobs/12\.log is not there \(yet\)"):
        logs(made.run, Choice())


def test_trials_by_number_prefix_or_id(tmp_path: Path) -> None:
    for name in ("12ab34cd", "99ee_00007", "99ee_00070", "99ee_00012"):
        (tmp_path / name).mkdir()
    (tmp_path / "state.zip").touch()
    assert find_trial(tmp_path, "7") == "99ee_00007"
    assert find_trial(tmp_path, "12a") == "12ab34cd"
    assert find_trial(tmp_path, "99ee_0007") == "99ee_00070"
    with pytest.raises(UsageError, match="'12' could be any of 12ab34cd, 99ee_00012"):
        find_trial(tmp_path, "12")


def test_an_error_names_few_of_many_trials(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"ab_{number:05d}").mkdir()
    with pytest.raises(UsageError) as caught:
        find_trial(tmp_path, "ab")
    assert len(caught.value.message) < 200
    assert caught.value.message.endswith("ab_00004 and 295 more")


# ------------------------------------------------------------------------------- the last lines


def test_a_tail_is_what_the_whole_would_give(tmp_path: Path) -> None:
    rng = random.Random(5)
    path = tmp_path / "log"
    for size in (0, 1, 10, 5000, 40000):
        for end in ("", "\n"):
            text = "\n".join("x" * rng.randrange(80) for _ in range(size)) + end
            path.write_text(text)
            whole = text.splitlines()
            assert tail(path, None) == whole
            for lines in (0, 1, 3, size, size + 5):
                assert tail(path, lines) == (whole[-lines:] if lines else [])


def test_a_log_may_hold_anything(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\xff\xfe\r\n\x1b[31mred\n")
    assert tail(path, 2) == ["\ufffd\ufffd", "\x1b[31mred"]


def test_logs_as_text_and_as_json(on_slurm: MadeRun) -> None:
    driver = on_slurm.run.attempts()[1].driver_log
    driver.write_text("".join(f"line {number}\n" for number in range(100)))
    result = call("logs", on_slurm.run.path, "--driver", "--lines", "2")
    assert result.stdout == f"==> driver, attempt 2: {driver} <==\nline 98\nline 99\n"
    assert len(call("logs", on_slurm.run.path, "--driver").stdout.splitlines()) == 41
    assert len(call("logs", on_slurm.run.path, "--driver", "--full").stdout.splitlines()) == 101
    result = call("logs", on_slurm.run.path, "1", "--json")
    shown = json.loads(result.stdout)
    assert set(shown) == {"schema", "run", "path", "logs"}
    assert [(log["kind"], log["name"], log["lines"]) for log in shown["logs"]] == [
        ("output", "ab12_00001", ["hello"]),
        ("error", "ab12_00001", ["ValueError: lr"]),
    ]


def test_a_wrong_choice_is_a_usage_error(on_slurm: MadeRun) -> None:
    result = call("logs", on_slurm.run.path, "ab12")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "error: trial 'ab12' could be any of" in result.stderr
    result = call("logs", on_slurm.run.path, "--follow", "--json")
    assert result.exit_code == 2
    assert "--json shows one instant: leave out --follow" in result.stderr


# ------------------------------------------------------------------------------- following


def followed(made: MadeRun, slurm: FakeSlurm, *steps: Callable[[], Any], **choice: Any) -> list[tuple[str, str]]:
    """Follow; between two looks do one step after the other."""
    left = list(steps)

    def sleep(seconds: float) -> None:
        assert left, "the run is over and it goes on"
        left.pop(0)()

    chunks = follow(made.run, Choice(**choice), lines=None, slurm=slurm, sleep=sleep)
    text = [(chunk.log.path.relative_to(made.run.path).as_posix(), chunk.text) for chunk in chunks]
    assert left == [], "it ended too early"
    return text


def append(path: Path, text: str) -> Callable[[], Any]:
    def step() -> None:
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(text)

    return step


def test_follow_goes_over_requeues_to_the_end(made: MadeRun) -> None:
    slurm = FakeSlurm().has("12", JobState.PENDING)
    made.submitted("12", ago=500)
    run = made.run
    first, second = (run.attempts_dir / number / "driver.log" for number in ("001", "002"))

    def begin(**options: Any) -> Callable[[], Any]:
        def step() -> None:
            slurm.has("12", JobState.RUNNING)
            made.attempt("12", **options)

        return step

    def requeued() -> None:
        append(first, "last words\n")()  # written while nobody looked, and then the next attempt begins
        run.attempts()[0].end(ended("interrupted", "the walltime is near"))
        slurm.has("12", JobState.PENDING)

    text = followed(
        made, slurm,
        append(run.job_log("12"), "starting\n"),
        begin(),
        append(first, "one\ntw"),
        append(first, "o\n"),
        requeued,
        begin(restart=1),
        append(run.attempts_dir / "002" / "nodes" / "iris-169.log", "node\n"),
        append(second, "three"),
        lambda: run.attempts()[1].end(ended("completed", "all trials have ended")),
    )  # fmt: skip
    assert text == [
        ("jobs/12.log", "starting\n"),
        ("attempts/001/driver.log", "one\n"),
        ("attempts/001/driver.log", "two\n"),
        ("attempts/001/driver.log", "last words\n"),
        ("attempts/002/nodes/iris-169.log", "node\n"),
        ("attempts/002/driver.log", "three"),  # without its end, as nothing more comes
    ]


def test_follow_of_a_run_that_is_over_shows_it_and_ends(on_slurm: MadeRun) -> None:
    text = followed(on_slurm, FakeSlurm(), driver=True)
    assert text == [("attempts/002/driver.log", "driver 2\n")]


def test_follow_of_one_attempt_ends_with_it(on_slurm: MadeRun) -> None:
    assert followed(on_slurm, FakeSlurm().has("12", JobState.PENDING), driver=True, attempt=1)


def test_follow_waits_while_slurm_is_silent(on_slurm: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patient, "LONGEST", 0.0)
    monkeypatch.setattr(Patient, "SHORTEST", 0.0)
    slurm = FakeSlurm(silent="slurmctld is down")
    again = [lambda: None, lambda: None, lambda: setattr(slurm, "silent", None)]
    assert followed(on_slurm, slurm, *again, driver=True)


def test_follow_begins_with_the_last_lines_and_shows_new_logs_whole(made: MadeRun) -> None:
    attempt = made.attempt("12")
    attempt.driver_log.write_text("1\n2\n3\n")
    slurm = FakeSlurm().has("12", JobState.RUNNING)
    steps = [
        lambda: made.node(attempt, "iris-169", 0, "up", log="a\nb\nc\n"),
        lambda: attempt.driver_log.write_text("new\n"),  # truncated and begun anew
        lambda: attempt.end(ended("completed", "all have ended")),
    ]
    chunks = follow(made.run, Choice(), lines=1, slurm=slurm, sleep=lambda seconds: steps.pop(0)())
    assert [chunk.text for chunk in chunks] == ["3\n", "a\nb\nc\n", "new\n"]


def test_follow_refuses_what_will_never_be_there(on_slurm: MadeRun) -> None:
    slurm = FakeSlurm().has("12", JobState.PENDING)
    for choice in (Choice(trial="zz"), Choice(attempt=7), Choice(nodes=("iris-9",))):
        with pytest.raises(UsageError):
            next(follow(on_slurm.run, choice, slurm=slurm))


def test_follow_on_the_command_line(on_slurm: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["hpc_tune.operations.logs"], "Slurm", FakeSlurm)
    result = call("logs", on_slurm.run.path, "--follow", "--full")
    assert result.exit_code == 0
    heads = [line.split(":")[0] for line in result.stdout.splitlines() if line.startswith("==>")]
    assert heads == ["==> batch log of job 12", "==> node iris-169, attempt 2", "==> driver, attempt 2"]
