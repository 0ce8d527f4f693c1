"""The client with stand-ins for Slurm's commands, for what a real Slurm cannot be made to say here.

The contract itself is proven on a real Slurm in ``tests/sandbox/test_slurm_client.py``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.errors import SlurmError
from hpc_tune.slurm.client import Slurm
from hpc_tune.slurm.states import JobState

ROW = "{id}|{state}|gpu|1|iris-169|2026-11-24T05:50:17|N/A|N/A|2:00:00|2:00:00|0:00|None\n"
ACCOUNTED = "{id}|{state}|gpu|1|iris-169|2026-11-24T05:50:17|Unknown|Unknown|02:00:00|00:00:00\n"
REFUSED = "sbatch: error: Batch job submission failed: "


class Commands:
    """Programs in a folder of their own that answer as told and write down what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls_file = folder / "calls"

    def answer(self, name: str, stdout: str = "", stderr: str = "", code: int = 0, sleep: float = 0) -> None:
        program = self.folder / name
        program.write_text(
            f"#!{sys.executable}\n"
            "import json, os, sys, time\n"
            f"with open({str(self.calls_file)!r}, 'a') as file:\n"
            f"    print(json.dumps([{name!r}, sys.argv[1:], dict(os.environ)]), file=file)\n"
            f"time.sleep({sleep})\n"
            f"sys.stdout.write({stdout!r}); sys.stderr.write({stderr!r}); sys.exit({code})\n"
        )
        program.chmod(0o755)

    def slurm(self, **environ: str) -> Slurm:
        return Slurm(environ={"PATH": str(self.folder), **environ})

    @property
    def calls(self) -> list[tuple[str, list[str], dict[str, str]]]:
        if not self.calls_file.exists():
            return []
        return [tuple(json.loads(line)) for line in self.calls_file.read_text().splitlines()]  # type: ignore[misc]

    @property
    def called(self) -> list[str]:
        return [name for name, _, _ in self.calls]


@pytest.fixture
def programs(tmp_path: Path) -> Commands:
    folder = tmp_path / "bin"
    folder.mkdir()
    return Commands(folder)


def error_of(action: Any) -> SlurmError:
    with pytest.raises(SlurmError) as caught:
        action()
    assert caught.value.exit_code == 4
    return caught.value


def test_without_slurm_the_ways_without_it_are_named(programs: Commands) -> None:
    slurm = programs.slurm()
    assert not slurm.is_installed
    for command, action in {
        "sbatch": lambda: slurm.submit(Path("job.sbatch")),
        "squeue": lambda: slurm.jobs(["1"]),
        "scancel": lambda: slurm.cancel(["1"]),
        "scontrol": slurm.config,
    }.items():
        error = error_of(action)
        assert error.message == f"{command} is not on this machine: Slurm is missing"
        assert "hpc-tune run" in str(error.hint)
        assert "hpc-tune submit --dry-run" in str(error.hint)


def test_a_submission(programs: Commands) -> None:
    programs.answer("sbatch", "12;iris\n", "sbatch: a word of the site\n")
    slurm = programs.slurm()
    assert slurm.is_installed
    assert slurm.submit(Path("job.sbatch"), dependency="afterany:7") == ("12", "iris")


def test_no_variable_changes_what_is_asked_or_leaks_into_a_job(programs: Commands) -> None:
    programs.answer("sbatch", "12\n")
    kept = {"SLURM_CONF": "/etc/slurm/slurm.conf", "HOME": "/home/a", "SLURMY": "1"}
    dropped = {"SBATCH_PARTITION": "old", "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2", "SQUEUE_FORMAT": "%i"}
    programs.slurm(**kept, **dropped).submit(Path("job.sbatch"))
    ((_, _, environ),) = programs.calls
    assert {name: environ.get(name) for name in kept} == kept
    assert dropped.keys().isdisjoint(environ)


def test_many_jobs_are_one_question(programs: Commands) -> None:
    ids = [str(number) for number in range(1, 101)]
    programs.answer("squeue", "".join(ROW.format(id=each, state="RUNNING") for each in ids))
    jobs = programs.slurm().jobs(ids)
    assert list(jobs) == ids
    assert {job.state for job in jobs.values()} == {JobState.RUNNING}
    assert programs.called == ["squeue"]


def test_what_squeue_has_forgotten_is_one_question_more(programs: Commands) -> None:
    programs.answer("squeue", ROW.format(id="1", state="RUNNING"))
    programs.answer(
        "sacct", ACCOUNTED.format(id="2", state="TIMEOUT") + ACCOUNTED.format(id="3", state="CANCELLED by 5")
    )
    jobs = programs.slurm().jobs(["1", "2", "3", "4", "2"])
    assert [(each, info.state.value) for each, info in jobs.items()] == [
        ("1", "RUNNING"), ("2", "TIMEOUT"), ("3", "CANCELLED"), ("4", "UNKNOWN"),
    ]  # fmt: skip
    assert jobs["4"].reason == "Slurm no longer lists the job, and its accounting does not know it"
    assert programs.called == ["squeue", "sacct"]
    assert "--jobs=2,3,4" in programs.calls[1][1]


@pytest.mark.parametrize("there", [True, False])
def test_a_vanished_job_is_unknown_where_there_is_no_accounting(programs: Commands, there: bool) -> None:
    programs.answer("squeue", "", "slurm_load_jobs error: Invalid job id specified\n", code=1)
    if there:
        programs.answer("sacct", "", "Slurm accounting storage is disabled\n", code=1)
    (job,) = programs.slurm().jobs(["9"]).values()
    assert job.state is JobState.UNKNOWN
    assert "accounting does not answer" in job.reason


def test_no_question_for_no_jobs(programs: Commands) -> None:
    assert programs.slurm().jobs([]) == {}
    programs.slurm().cancel([])
    assert programs.calls == []


def test_a_silent_controller_is_an_error_not_an_empty_answer(programs: Commands) -> None:
    programs.answer(
        "squeue", "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", code=1
    )
    error = error_of(lambda: programs.slurm().jobs(["9"]))
    assert "Unable to contact slurm controller" in error.message
    assert "slurmctld does not answer" in str(error.hint)


def test_jobs_that_are_gone_are_cancelled_already(programs: Commands) -> None:
    gone = "scancel: error: Kill job error on job id 9: Invalid job id specified\n"
    programs.answer("scancel", "", gone, code=1)
    programs.slurm().cancel(["9"])
    programs.answer(
        "scancel", "", gone + "scancel: error: Kill job error on job id 8: Access/permission denied\n", code=1
    )
    assert "job id 8: Access/permission denied" in error_of(lambda: programs.slurm().cancel(["9", "8"])).message


def test_a_slow_command_is_given_up(programs: Commands) -> None:
    programs.answer("squeue", sleep=30)
    programs.answer("sbatch", sleep=30)
    slurm = Slurm(timeout=0.3, submit_timeout=0.3, environ={"PATH": str(programs.folder)})
    assert not error_of(lambda: slurm.jobs(["1"])).outcome_unknown
    error = error_of(lambda: slurm.submit(Path("job.sbatch")))
    assert error.outcome_unknown  # slurmctld may have got it
    assert "squeue --me" in str(error.hint)


@pytest.mark.parametrize(
    ("stdout", "stderr", "code"),
    [
        ("", f"{REFUSED}Socket timed out on send/recv operation\n", 1),
        ("", f"{REFUSED}Unable to contact slurm controller (receive failure)\n", 1),
        ("what?\n", "", 0),
    ],
)
def test_a_job_may_be_there_although_sbatch_did_not_say_so(
    programs: Commands, stdout: str, stderr: str, code: int
) -> None:
    programs.answer("sbatch", stdout, stderr, code)
    assert error_of(lambda: programs.slurm().submit(Path("job.sbatch"))).outcome_unknown


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("Invalid account or account/partition combination specified", "allocation.account (--account)"),
        ("Invalid partition name specified", "allocation.partition (--partition)"),
        ("User's group not permitted to use this partition", "allocation.partition (--partition)"),
        ("Required partition not available (inactive or drain)", "allocation.partition (--partition)"),
        ("Invalid qos specification", "allocation.qos (--qos)"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "allocation.time (--time)"),
        ("Time limit specification required, but not provided", "allocation.time (--time)"),
        ("Node count specification invalid", "allocation.nodes (--nodes)"),
        ("More processors requested than permitted", "allocation.nodes (--nodes)"),
        ("Requested node configuration is not available", "allocation.gpus_per_node"),
        ("Invalid generic resource (gres) specification", "allocation.gpus_per_node (--gpus-per-node)"),
        ("Invalid Trackable RESource (TRES) specification", "allocation.gpus_per_node (--gpus-per-node)"),
        ("Invalid feature specification", "allocation.constraint (--constraint)"),
        ("Invalid node name specified", "allocation.exclude (--exclude)"),
        ("Requested reservation is invalid", "allocation.sbatch.reservation"),
        ("Access denied to requested reservation", "allocation.sbatch.reservation"),
        ("Invalid license specification", "allocation.sbatch.licenses"),
        ("Requested account has breached requested QOS usage threshold", "allocation.qos"),
        ("Slurm temporarily unable to accept job, sleeping and retrying", "too busy"),
    ],
)
def test_a_refusal_names_the_key(programs: Commands, said: str, hint: str) -> None:
    programs.answer("sbatch", "", f"{REFUSED}{said}\n", code=1)
    error = error_of(lambda: programs.slurm().submit(Path("job.sbatch")))
    assert error.message == f"Slurm refused (sbatch): {said}"
    assert hint in str(error.hint)
    assert not error.outcome_unknown


def test_the_more_special_line_gives_the_hint(programs: Commands) -> None:
    programs.answer("sbatch", "", (
        "sbatch: error: Memory specification can not be satisfied\n"
        f"{REFUSED}Requested node configuration is not available\n"
    ), code=1)  # fmt: skip
    error = error_of(lambda: programs.slurm().submit(Path("job.sbatch")))
    assert "Memory specification can not be satisfied" in error.message
    assert str(error.hint) == "change allocation.memory (--memory)"


def test_a_limit_is_explained(programs: Commands) -> None:
    policy = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    programs.answer("sbatch", "", f"sbatch: error: QOSMaxNodePerJobLimit\n{REFUSED}{policy}\n", code=1)
    error = error_of(lambda: programs.slurm().submit(Path("job.sbatch")))
    assert "more nodes per job than its QOS allows (allocation.nodes)" in str(error.hint)


def test_a_sites_own_words_are_shown(programs: Commands) -> None:
    programs.answer(
        "sbatch", "", "sbatch: error: Please use --account=project_XYZ\nsbatch: error: See our wiki\n", code=1
    )
    error = error_of(lambda: programs.slurm().submit(Path("job.sbatch")))
    assert error.message == "Slurm refused (sbatch): Please use --account=project_XYZ; See our wiki"


def test_an_option_that_this_slurm_does_not_know(programs: Commands) -> None:
    said = "sbatch: unrecognized option '--frobnicate=1'\nTry \"sbatch --help\" for more information\n"
    programs.answer("sbatch", "", said, code=255)
    error = error_of(lambda: programs.slurm().submit(Path("job.sbatch")))
    assert error.message == "Slurm refused (sbatch): unrecognized option '--frobnicate=1'"
    assert "allocation.sbatch" in str(error.hint)


def test_a_configuration_that_is_not_understood(programs: Commands) -> None:
    programs.answer("scontrol", "nonsense\n")
    assert "not understood" in error_of(programs.slurm().config).message
