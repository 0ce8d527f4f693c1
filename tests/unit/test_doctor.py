"""What ``hpc-tune doctor`` says of machines and of runs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hpc_tune.cli import cli
from hpc_tune.operations.diagnosis import Diagnosis, diagnose
from hpc_tune.operations.machine_facts import MachineFacts, read_facts
from hpc_tune.operations.preflight import Check, machine_checks, parse_quota, place_checks, same_software
from hpc_tune.operations.status import status
from hpc_tune.slurm.states import JobState
from tests.unit.conftest import Project
from tests.unit.made_runs import FakeSlurm, MadeRun, ended, searching

GOOD = MachineFacts(
    host="iris-169", hpc_tune="0.1.0", python="3.11.7", executable="/venv/bin/python", ray="2.60.0", torch="2.13.0",
    torch_cuda="12.8", gpus="0,1", shared_memory=64 * 2**30, open_files=1_048_576, processes=-1, temp_dir="/tmp",
    temp_free=50 * 2**30, proxies=(), ray_token=None,
)  # fmt: skip


def checks(**changes: Any) -> dict[str, Check]:
    return {check.name: check for check in machine_checks(replace(GOOD, **changes), wants_gpus=True)}


def test_a_good_machine_is_good() -> None:
    assert {check.state for check in checks().values()} == {"ok"}


@pytest.mark.parametrize(
    ("name", "state", "changes"),
    [
        ("ray", "fail", {"ray": None}),
        ("ray", "fail", {"ray": "2.9.3"}),
        ("ray", "fail", {"ray": "2.61.0"}),
        ("torch", "warn", {"torch_cuda": None}),
        ("open files", "warn", {"open_files": 20_000}),
        ("open files", "fail", {"open_files": 1024}),
        ("processes", "warn", {"processes": 1024}),
        ("shared memory", "warn", {"shared_memory": 64 * 2**20}),
        ("shared memory", "fail", {"shared_memory": None}),
        ("temp dir", "warn", {"temp_free": 2**30}),
        ("temp dir", "fail", {"temp_free": 20 * 2**20}),
        ("temp dir", "fail", {"temp_free": None}),
        ("socket paths", "fail", {"temp_dir": "/scratch/users/ada/projects/a-long-name/tmp/ray"}),
        ("ray token", "warn", {"ray_token": "/home/ada/.ray/auth_token"}),
        ("proxies", "ok", {"proxies": ("http_proxy",)}),
    ],
)
def test_what_is_wrong_is_named_with_its_fix(name: str, state: str, changes: dict[str, Any]) -> None:
    found = checks(**changes)
    assert found[name].state == state
    assert state == "ok" or found[name].fix
    assert {each.state for each in found.values() if each.name != name} == {"ok"}


def test_torch_for_cpus_is_fine_where_there_are_no_gpus() -> None:
    assert "torch" not in {check.name for check in machine_checks(replace(GOOD, torch_cuda=None))}


def test_other_software_on_the_node_is_told() -> None:
    assert same_software(GOOD, replace(GOOD, host="login")).state == "ok"
    found = same_software(GOOD, replace(GOOD, ray="2.59.1", python="3.12.1"))
    assert (found.state, found.sentence) == ("warn", "Ray 2.60.0 here, 2.59.1 there; Python 3.11 here, 3.12 there")


def test_facts_travel_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").touch()
    (tmp_path / "probe").write_text("secret")
    done = CliRunner().invoke(cli, ["doctor", "--facts", "/var/tmp", str(tmp_path / "probe")])
    found = MachineFacts.from_json(f"loading modules\n{done.output}")
    assert found == replace(read_facts("/var/tmp", tmp_path / "probe"), temp_free=found.temp_free)
    assert (found.probe, found.proxies, found.ray_token) == ("secret", ("https_proxy",), f"{tmp_path}/.ray/auth_token")
    assert found.ray is not None
    with pytest.raises(ValueError, match="bash: python: command not found"):
        MachineFacts.from_json("bash: python: command not found\n")


def test_a_place_that_is_not_ours_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as for anybody but root
    assert [check.state for check in place_checks(Path("/proc/runs"))] == ["fail"]


def test_a_place_is_looked_at_before_it_is_there(tmp_path: Path) -> None:
    found = {check.name: check for check in place_checks(tmp_path / "not" / "yet")}
    assert str(tmp_path) in found["space"].sentence
    assert not (tmp_path / "not").exists()


QUOTA = """\
Disk quotas for user ada (uid 1000): 
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
fs:/home 4500000 5000000 5500000       0  120000  100000  110000       0
"""  # noqa: W291 - as the program prints it
LUSTRE = "/scratch 9126805504* 8589934592 10737418240 6d23h 812345 0 1000000 -\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (QUOTA, [("fs:/home", "KB", 4500000, 5000000), ("fs:/home", "files", 120000, 100000)]),
        (LUSTRE, [("/scratch", "KB", 9126805504, 8589934592), ("/scratch", "files", 812345, 1000000)]),
        ("quota: Cannot resolve mountpoint path\n", []),
    ],
)
def test_quotas_are_understood(text: str, found: list[tuple[str, str, int, int]]) -> None:
    assert list(parse_quota(text)) == found


def test_the_command_says_how_it_went(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = CliRunner().invoke(cli, ["doctor", "--json", "--runs-dir", str(tmp_path)])
    said = json.loads(done.output)
    assert said["schema"] == 1
    assert done.exit_code == (0 if said["ready"] else 1)
    assert {"slurm", "site", "ray", "open files", "processes", "shared memory", "space"} <= {
        check["name"] for check in said["checks"]
    }
    shown = CliRunner().invoke(cli, ["doctor", "--runs-dir", str(tmp_path)]).output
    assert "there is no Slurm here" in shown


# ------------------------------------------------------------------------------------- of a run


@pytest.fixture
def made(project: Project, runs_dir: Path) -> MadeRun:
    return MadeRun(project.create_run(runs_dir))


def diagnosed(made: MadeRun, slurm: FakeSlurm | None = None) -> Diagnosis:
    return diagnose(made.run, slurm=slurm or FakeSlurm())


def test_trials_that_fail_name_the_cause(made: MadeRun) -> None:
    made.attempt(outcome=replace(ended("failed", "all 3 trials failed"), exit_code=5))
    for number in range(3):
        error = "Traceback:\n  File \"/x/train.py\", line 3\n    f()\nModuleNotFoundError: No module named 'timm'\n"
        made.trial(f"t_{number}", error=f"Failure # 1 (occurred at 2026-11-24_10-00-00)\n{error}")
    found = diagnosed(made)
    assert found.causes[0].rule == "import"
    assert found.causes[0].source == "trials: 3 of them"
    assert "No module named 'timm' (train.py:3)" in found.causes[0].sentence


def test_an_error_that_nobody_knows_is_shown_as_it_is(made: MadeRun) -> None:
    made.attempt(outcome=replace(ended("failed", "all 1 trials failed"), exit_code=5))
    made.trial("t_0", error="ValueError: lr too big\n")
    (cause,) = diagnosed(made).causes
    assert cause.sentence == "1 trial failed: ValueError: lr too big"


def test_slurm_s_word_is_evidence(made: MadeRun) -> None:
    made.submitted("4711", ago=200)
    made.attempt("4711", progress=searching(), seen=100)
    slurm = FakeSlurm().has("4711", JobState.OUT_OF_MEMORY)
    assert diagnosed(made, slurm).causes[0].rule == "slurm out of memory"


def test_a_node_s_log_says_more_than_that_it_did_not_join(made: MadeRun) -> None:
    made.submitted("4711", ago=200)
    attempt = made.attempt("4711", nodes=2, names=("iris-169", "iris-170"), outcome=ended(
        "failed", "1 of 2 nodes after 25 s; missing iris-170 (exit code 1)"))  # fmt: skip
    made.node(attempt, "iris-170", 1, "failed", reason="exit code 1", log="OSError: [Errno 24] Too many open files\n")
    found = diagnosed(made, FakeSlurm().has("4711", JobState.FAILED))
    assert [cause.rule for cause in found.causes] == ["open files", "nodes missing"]
    assert found.causes[0].path == attempt.node_log("iris-170")


def test_a_walltime_without_a_result_is_too_short(made: MadeRun) -> None:
    made.submitted("4711", ago=200)
    outcome = replace(ended("interrupted", "the walltime is near; the search is saved"), cause="walltime")
    made.attempt("4711", progress=replace(searching(), iterations=0), outcome=outcome)
    found = diagnosed(made, FakeSlurm().has("4711", JobState.COMPLETED))
    assert found.causes[0].rule == "short walltime"
    assert "--time" in found.causes[0].fix


def test_of_a_run_that_is_well_nothing_is_said(made: MadeRun) -> None:
    attempt = made.attempt(outcome=ended("completed", "8 trials"))
    attempt.driver_log.write_text("WARNING: Address already in use; took another port\n")
    found = diagnosed(made)
    assert (found.causes, found.is_failure) == ((), False)
    shown = CliRunner().invoke(cli, ["doctor", str(made.run.path)])
    assert shown.exit_code == 0
    assert "nothing is wrong" in shown.output


def test_the_status_of_a_failed_run_leads_here(made: MadeRun) -> None:
    made.attempt(outcome=ended("failed", "RuntimeError: x"))
    assert status(made.run, slurm=FakeSlurm()).next[0] == f"hpc-tune doctor {made.run.path}"


def test_the_command_shows_cause_fix_and_where_it_stands(made: MadeRun) -> None:
    attempt = made.attempt(outcome=ended("failed", "RuntimeError: x"))
    attempt.driver_log.write_text("OSError: [Errno 122] Disk quota exceeded: '/scratch/x'\n")
    shown = CliRunner().invoke(cli, ["doctor", str(made.run.path)]).output
    assert "cause  your quota is used up" in shown
    assert f"hpc-tune resume {made.run.path}" in shown
    assert str(attempt.driver_log) in shown
    said = json.loads(CliRunner().invoke(cli, ["doctor", str(made.run.path), "--json"]).output)
    assert said["causes"][0]["rule"] == "quota"
