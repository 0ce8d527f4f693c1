"""Runs that share a job: what is sent, whose turn it is, what the others are told, and what ends whom."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.attempt import Outcome, SlurmJob, Submission
from hpc_tune.errors import FaultyFiles, SlurmError
from hpc_tune.line import hand_over, stand_in_line, waiting_behind
from hpc_tune.operations.cancel import cancel
from hpc_tune.operations.conclude import conclude
from hpc_tune.operations.listing import list_all
from hpc_tune.operations.planning import plan_together
from hpc_tune.operations.status import status
from hpc_tune.operations.submit import resubmit, submit_together
from hpc_tune.run import RunDir
from hpc_tune.slurm.commands import JobInfo
from hpc_tune.slurm.states import JobState
from tests.unit.made_runs import FakeSlurm, MadeRun, ended, searching
from tests.unit.test_conclude import JOB
from tests.unit.test_conclude import FakeSlurm as JobsSlurm
from tests.unit.test_submit import FakeSlurm as Sbatch
from tests.unit.test_submit import Login, call, login, refused

__all__ = ["login"]

RUNNING = JobState.RUNNING
ALL_FAILED = Outcome("failed", "all 8 trials failed", exit_code=5)
WALLTIME = Outcome("interrupted", "the walltime is near", exit_code=1, cause="walltime")


@pytest.fixture
def line(project: Any, runs_dir: Path) -> list[MadeRun]:
    """Three runs of one job, none of which has begun."""
    runs = [project.create_run(runs_dir, name=name) for name in ("first", "second", "third")]
    stand_in_line(runs)
    for run in runs:
        run.jobs_dir.mkdir()
        run.job_script.write_text("#!/bin/bash\n")
    made = [MadeRun(run) for run in runs]
    made[0].submitted("4711")
    return made


def files(project: Any, **second: Any) -> list[Path]:
    one, two = project.spec(name="one"), project.spec(name="two", **{"trial": {"cpus": 3}} | second)
    return [project.write(f"{each['name']}.json", json.dumps(each)) for each in (one, two)]


def states(line: list[MadeRun], slurm: Any) -> list[str]:
    return [str(status(made.run, slurm=slurm).state) for made in line]


# ------------------------------------------------------------------------------- what is sent


def test_one_job_for_two_runs(project: Any, login: Login) -> None:
    files(project, num_samples=5)
    login.has_slurm()
    result = call("one.json", "two.json", "--site", "generic", "--nodes", "2", "--set", "seed=3", "--json")
    assert result.exit_code == 0, result.output
    one, two = json.loads(result.stdout)["runs"]
    assert (one["job_id"], two["job_id"], one["trials"], two["trials"]) == ("4711", "4711", 1, 5)
    runs = [RunDir(Path(each["path"])) for each in (one, two)]
    sent = login.sent()
    assert sent is not None
    assert sent[-1] == str(runs[0].job_script)
    for run in runs:  # both steps fit the job, and the options are for both
        script = run.job_script.read_text()
        assert "#SBATCH --nodes=2\n" in script
        assert " --cpus-per-task=3 " in script
        assert run.record()["seed"] == 3
    assert [len(run.submissions()) for run in runs] == [1, 0]
    assert waiting_behind(runs[0]) == [runs[1]]


def test_what_a_user_reads_of_two(project: Any, login: Login) -> None:
    files(project)
    login.has_slurm()
    lines = call("one.json", "two.json", "--site", "generic").stdout.splitlines()
    assert [line for line in lines if line.endswith(".json:")] == ["one.json:", "two.json:"]
    assert lines[-1] == "         then, in the same job, run two-20261122-101500"


def test_a_dry_run_shows_each_script(project: Any, login: Login) -> None:
    files(project)
    shown = call("one.json", "two.json", "--site", "generic", "--dry-run").stdout
    assert shown.count("#!/bin/bash\n") == 2
    assert not login.runs.exists()


def test_all_faults_of_all_files_before_anything_is_made(project: Any, login: Login) -> None:
    project.write("one.json", json.dumps(project.spec(name="one", mode="up")))
    project.write("two.json", json.dumps(project.spec("metric", name="two", num_samples=0)))
    before = login.files()
    answer = refused(2, "one.json", "two.json")
    assert answer.count(": 1 fault\n") == 1
    assert answer.count(": 2 faults\n") == 1
    for key in ("  mode: ", "  metric: ", "  num_samples: "):
        assert key in answer
    assert login.files() == before


@pytest.mark.parametrize(
    ("allocation", "fault"),
    [
        (
            {"time": "1h"},
            "allocation.time: is 01:00:00, but left to Slurm in one.json; one job runs both; use --time",
        ),
        ({"qos": "low"}, "allocation.qos: is low, but left to Slurm in one.json; one job runs both; use --qos"),
        ({"grace": 60}, "allocation.grace: is 60.0, but 120 in one.json"),
    ],
)
def test_what_one_job_cannot_have_twice(project: Any, login: Login, allocation: Any, fault: str) -> None:
    files(project, allocation=allocation)
    assert fault in refused(2, "one.json", "two.json", "--site", "generic")
    assert call("one.json", "two.json", "--site", "generic", "--time", "2h", "--dry-run").exit_code == (
        0 if "time" in allocation else 2
    )


def test_a_refusal_leaves_nothing_of_both(project: Any, login: Login) -> None:
    plans = plan_together(files(project), runs_dir=None, overrides=(), slurm=Sbatch())  # type: ignore[arg-type]
    with pytest.raises(SlurmError):
        submit_together(plans, overrides=(), slurm=Sbatch(fails=SlurmError("refused")))  # type: ignore[arg-type]
    assert not login.runs.exists()


def test_a_second_that_fits_no_node_is_named_with_the_first(project: Any, login: Login) -> None:
    paths = files(project, trial={"cpus": 30})
    paths[0].write_text(json.dumps(project.spec(name="one", trial={"cpus": 29})))
    with pytest.raises(FaultyFiles) as caught:
        plan_together(paths, runs_dir=None, overrides=["allocation.cpus_per_node=4"], slurm=Sbatch())  # type: ignore[arg-type]
    assert str(caught.value).count("trial.cpus") >= 2


# ------------------------------------------------------------------------------- whose turn it is


def test_those_behind_say_for_whom_they_wait(line: list[MadeRun]) -> None:
    slurm = FakeSlurm().has("4711", JobState.PENDING, partition="gpu")
    first, second, third = (status(made.run, slurm=slurm) for made in line)
    assert states(line, slurm) == ["pending", "pending", "pending"]
    assert second.reason == f"waits behind {line[0].run.name}, which is pending: {first.reason}"
    assert third.reason.startswith(f"waits behind {line[1].run.name}, which is pending: waits behind ")
    assert (second.live, second.over, [job.job_id for job in second.jobs]) == (True, False, ["4711"])
    listed = list_all(line[0].run.path.parent, slurm=slurm).runs
    assert [(str(each.state), each.job.job_id if each.job else None) for each in listed] == [("pending", "4711")] * 3


@pytest.mark.parametrize("outcome", [ALL_FAILED, Outcome("completed", "all have ended")])
def test_the_job_goes_on_with_the_next(line: list[MadeRun], outcome: Outcome) -> None:
    first, second, _ = line
    first.attempt("4711", outcome=outcome)
    looking = FakeSlurm().has("4711", RUNNING)
    assert status(second.run, slurm=looking).live  # also between the end of the first and its own turn
    jobs: Any = JobsSlurm()
    concluded = conclude(first.run, way="successor", slurm=jobs, environment=JOB)
    assert concluded.next_run == f"the job goes on with {second.run.name}"
    assert (first.run.jobs_dir / "4711.next").resolve() == second.run.path
    assert states(line, looking) == [outcome.ending, "starting", "pending"]
    assert status(first.run, slurm=looking).over
    second.attempt("4711", ago=-1, progress=searching(RUNNING=2))
    assert states(line, looking) == [outcome.ending, "running", "pending"]


def test_the_line_waits_for_a_run_that_goes_on_itself(line: list[MadeRun]) -> None:
    first, second, _ = line
    first.attempt("4711", outcome=WALLTIME)
    jobs: Any = JobsSlurm()
    assert conclude(first.run, way="successor", slurm=jobs, environment=JOB).next_run == ""
    slurm = FakeSlurm().has("4711", JobState.COMPLETED).has("4712", JobState.PENDING)
    assert status(second.run, slurm=slurm).reason.startswith(
        f"waits behind {first.run.name}, which is pending: job 4712"
    )


@pytest.mark.parametrize(
    ("refuses", "says"),
    [
        ((), "job 4712 goes on as soon as this one is over"),
        (("submit",), "job 4711 requeues itself"),
        (("submit", "requeue"), "start {name} with: hpc-tune resume {path}"),
    ],
)
def test_little_time_is_left_to_another_job(line: list[MadeRun], refuses: tuple[str, ...], says: str) -> None:
    class Late(JobsSlurm):
        def jobs(self, ids: Iterable[str]) -> dict[str, JobInfo]:
            return {each: JobInfo(each, RUNNING, time_left=130.0) for each in ids}

    first, second, third = line
    first.attempt("4711", outcome=Outcome("completed", "all have ended"))
    jobs: Any = Late(refuses=refuses)
    said = conclude(first.run, way="successor", slurm=jobs, environment=JOB).next_run
    assert said.endswith(says.format(name=second.run.name, path=second.run.path))
    job_ids = [each.job_id for each in second.run.submissions()]
    assert job_ids == {0: ["4712"], 1: ["4711"], 2: []}[len(refuses)]
    assert [each.name for each in first.run.jobs_dir.glob("*.next")] == (["4711.next"] if len(refuses) == 1 else [])
    assert waiting_behind(second.run) == [third.run]


@pytest.mark.parametrize("way", ["none", "successor"])
def test_a_job_that_ends_leaves_the_line_to_its_owner(line: list[MadeRun], way: Any) -> None:
    """The walltime is over where the site starts nothing, or somebody has ended the job with scancel."""
    first, second, _ = line
    outcome = WALLTIME if way == "none" else Outcome("completed", "all have ended")
    first.attempt("4711", outcome=outcome)
    jobs: Any = JobsSlurm(state=RUNNING if way == "none" else JobState.CANCELLED)
    assert "hpc-tune resume" in conclude(first.run, way=way, slurm=jobs, environment=JOB).next_run
    found = status(second.run, slurm=FakeSlurm().has("4711", JobState.CANCELLED))
    assert (str(found.state), found.over) == ("created", True)
    assert found.reason == f"its turn has not come; it stands behind {first.run.name}, which is {outcome.ending}: " + (
        outcome.reason
    )
    assert found.next == (f"hpc-tune resume {first.run.path}", f"hpc-tune resume {second.run.path}")


def test_only_one_job_gets_a_run(line: list[MadeRun]) -> None:
    first, second, third = (made.run for made in line)
    with second.submit_lock.held():  # its owner is about to send it alone
        assert hand_over(first, SlurmJob("4711")) == third
    assert hand_over(first, SlurmJob("4713")) == second
    assert hand_over(first, SlurmJob("4714")) is None


def test_a_run_that_is_gone_is_nobodys_business(line: list[MadeRun]) -> None:
    line[1].run.record_file.unlink()
    assert waiting_behind(line[0].run) == [line[2].run]
    assert status(line[2].run, slurm=FakeSlurm().has("4711", RUNNING)).reason.startswith("waits behind first-")


def test_who_waits_gets_the_nodes_of_the_resumed_run(project: Any, login: Login) -> None:
    slurm: Any = Sbatch()
    plans = plan_together(files(project), runs_dir=None, overrides=["allocation.nodes=4"], slurm=slurm)
    one, two = (each.run for each in submit_together(plans, overrides=["allocation.nodes=4"], slurm=slurm))
    MadeRun(one).attempt("4711", outcome=WALLTIME)
    slurm.jobs = lambda ids: {each: JobInfo(each, JobState.COMPLETED) for each in ids}
    sent = resubmit(one, overrides=["allocation.nodes=2"], retry_errors=False, slurm=slurm)
    assert sent.notes == (f"{two.name} waits behind it, and has its turn in the same job",)
    for run in (one, two):
        assert " --nodes=2 " in run.job_script.read_text()
    assert "#SBATCH --nodes=2\n" in one.job_script.read_text()


# ------------------------------------------------------------------------------- what ends whom


class Steps(FakeSlurm):
    """Ends job steps, too."""

    def cancel(self, ids: Iterable[str], *, signal: str | None = None) -> None:
        self.cancelled += ids


def test_a_run_that_waits_is_passed_over(line: list[MadeRun]) -> None:
    first, second, third = line
    slurm = Steps().has("4711", RUNNING)
    done = cancel(second.run, slurm=slurm)
    assert (done.behind, done.is_nothing, slurm.cancelled) == (first.run.name, False, [])
    found = status(second.run, slurm=slurm)
    assert (str(found.state), found.reason.startswith("cancelled by ")) == ("cancelled", True)
    assert status(third.run, slurm=slurm).reason.startswith(f"waits behind {first.run.name}, ")
    assert hand_over(first.run, SlurmJob("4711")) == third.run
    assert cancel(second.run, slurm=slurm).is_nothing


def test_a_job_that_others_wait_for_outlives_the_run_at_work(
    line: list[MadeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = line
    attempt = first.attempt("4711", progress=searching(RUNNING=1), step="4711.0")
    slurm = Steps().has("4711", RUNNING)
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if slurm.cancelled:  # the script sees what became of it
            attempt.end(Outcome("interrupted", "it was cancelled", exit_code=1, cause="cancelled"))
            conclude(first.run, way="successor", slurm=JobsSlurm(), environment=JOB)  # type: ignore[arg-type]

    done = cancel(first.run, slurm=slurm, sleep=sleep)
    assert (done.running, done.left, done.goes_on) == (("4711",), (), (second.run.name,))
    assert slurm.cancelled == ["4711.0"]
    assert states(line, slurm) == ["cancelled", "starting", "pending"]


def test_a_job_that_has_not_begun_begins_with_the_next(line: list[MadeRun]) -> None:
    first, second, third = line
    slurm = Steps().has("4711", JobState.PENDING)
    done = cancel(first.run, slurm=slurm)
    assert (done.waiting, done.goes_on, slurm.cancelled) == (("4711",), (second.run.name,), [])
    assert states(line, slurm) == ["cancelled", "pending", "pending"]
    cancel(third.run, slurm=slurm)
    assert cancel(second.run, slurm=slurm).goes_on == ()
    assert set(slurm.cancelled) == {"4711"}  # nobody waits for it any more


def test_the_last_in_line_ends_its_job(line: list[MadeRun], monkeypatch: pytest.MonkeyPatch) -> None:
    third = line[2]
    Submission("4711", "", 1.0, "successor").write(third.run.jobs_dir / "4711.json")
    third.attempt("4711", progress=searching(RUNNING=1), step="4711.2")
    slurm = FakeSlurm().has("4711", RUNNING)
    assert cancel(third.run, now=True, slurm=slurm, sleep=lambda seconds: None).goes_on == ()
    assert slurm.cancelled == ["4711"]


def test_a_completed_run_does_not_end_the_job_of_the_next(line: list[MadeRun]) -> None:
    first, second, _ = line
    first.attempt("4711", outcome=ended("completed", "all have ended"))
    assert hand_over(first.run, SlurmJob("4711")) == second.run
    slurm = Steps().has("4711", RUNNING)
    assert cancel(first.run, slurm=slurm).is_nothing
    assert slurm.cancelled == []
