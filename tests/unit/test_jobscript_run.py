"""The job script at work: bash runs it, with stand-ins for Slurm and the site's software that note their arguments."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.attempt import SlurmJob
from hpc_tune.jobscript import render_job_script
from hpc_tune.request import JobRequest
from hpc_tune.run import RunDir
from hpc_tune.site import Site
from tests.unit.test_jobscript import NASTY

NOTE = """\
#!/bin/bash
printf '%s\\0' "${0##*/}" "$#" "$@" >>"$STAGE/calls"
"""
SRUN = """\
env -0 >"$STAGE/environment"
: >"$STAGE/started"
read -r answer <"$STAGE/answer"
exit "$answer"
"""
PYTHON = 'case " $* " in *" conclude "*) exit "${CONCLUDED:-0}" ;; esac\n'
REQUEST = JobRequest(nodes=4, cpus_per_node=28, gpus_per_node=4, min_nodes=2)


@dataclass
class Stage:
    """A folder with everything that the script calls, and what it was called with."""

    path: Path
    run: RunDir
    environment: dict[str, str] = field(default_factory=dict)

    def tool(self, path: Path, text: str = "") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(NOTE + text)
        path.chmod(0o700)
        return path

    def script(self, site: Site, python: str, request: JobRequest = REQUEST) -> Path:
        path = self.path / "job.sbatch"
        path.write_text(render_job_script(request, site, run=self.run.path, python=python), encoding="utf-8")
        return path

    def start(self, script: Path, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(script)],
            cwd=self.path / "cwd",
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def srun_ends(self, code: int) -> None:
        (self.path / "answer").write_text(f"{code}\n")

    def calls(self) -> list[list[str]]:
        """Return the calls so far, the program's name first."""
        try:
            words = (self.path / "calls").read_text(encoding="utf-8").split("\0")[:-1]
        except FileNotFoundError:
            return []
        calls = []
        while words:
            count = int(words[1])
            calls.append([words[0], *words[2 : count + 2]])
            words = words[count + 2 :]
        return calls

    def variables(self) -> Mapping[str, str]:
        """Return the environment that srun found."""
        entries = (self.path / "environment").read_text(encoding="utf-8").split("\0")
        return dict(entry.split("=", 1) for entry in entries if "=" in entry)

    def left_behind(self) -> set[str]:
        """Return the files that nobody should have made."""
        return {str(path) for path in self.path.rglob("pwned*")} | {str(each) for each in (self.path / "cwd").iterdir()}


def stage_at(path: Path, runs: str = "runs") -> Stage:
    run = RunDir(path / runs / "digits-1")
    run.jobs_dir.mkdir(parents=True)
    for folder in ("bin", "cwd", "home"):
        (path / folder).mkdir()
    os.mkfifo(path / "answer")
    stage = Stage(path, run)
    stage.environment = {
        "PATH": f"{path / 'bin'}:{os.environ['PATH']}",
        "HOME": str(path / "home"),
        "STAGE": str(path),
        "SLURM_JOB_ID": "4711",
        "LC_ALL": "C.UTF-8",
    }
    for tool in ("module", "conda"):
        stage.tool(path / "bin" / tool)
    for tool in ("python", "apptainer"):
        stage.tool(path / "bin" / tool, PYTHON)
    stage.tool(path / "bin/srun", SRUN)
    return stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return stage_at(tmp_path)


@contextmanager
def started(stage: Stage, script: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Yield the script once srun runs; srun waits to be told how to end."""
    with stage.start(script, **environment) as job:
        try:
            until(lambda: (stage.path / "started").exists() or job.poll() is not None)
            assert job.poll() is None, job.communicate()[0]
            yield job
        finally:
            job.kill()


def through(stage: Stage, script: Path, *, srun: int = 0, **environment: str) -> int:
    """Run the script to its end, and return its exit code."""
    with started(stage, script, **environment) as job:
        stage.srun_ends(srun)
        output, _ = job.communicate(timeout=20)
        assert output == ""
        return job.returncode


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def heard(marker: Path) -> list[str]:
    return marker.read_text().split() if marker.exists() else []


def after_options(call: list[str]) -> list[str]:
    """Return what srun starts: its own options all begin with two dashes and hold their values."""
    assert call[0] == "srun"
    words = call[1:]
    while words[0].startswith("--"):
        words = words[1:]
    return words


# ------------------------------------------------------------------------------- what is started


def test_one_agent_on_each_node_and_one_call_at_the_end(stage: Stage) -> None:
    python = stage.tool(stage.path / "venv/bin/python3", PYTHON)
    assert through(stage, stage.script(Site(name="here", interface="ib0"), str(python))) == 0
    srun, conclude = stage.calls()
    assert {"--nodes=4", "--ntasks=4", "--ntasks-per-node=1", "--cpus-per-task=28", "--gres=gpu:4"} <= set(srun)
    assert {"--kill-on-bad-exit=0", "--wait=0", "--no-kill"} <= set(srun)  # one node's end is not that of the others
    assert after_options(srun)[:4] == [str(python), "-m", "hpc_tune.runtime.node", str(stage.run.path)]
    assert {"--min-nodes=2", "--temp-dir=/tmp", "--interface=ib0"} <= set(srun)
    (begun,) = (word.removeprefix("--job-start=") for word in srun if word.startswith("--job-start="))
    assert abs(time.time() - float(begun)) < 30
    assert conclude[:5] == ["python3", "-m", "hpc_tune", "conclude", str(stage.run.path)]


@pytest.mark.parametrize(("srun", "concluded"), [(0, 0), (1, 0), (137, 5), (0, 1)])
def test_the_job_ends_as_conclude_says(stage: Stage, srun: int, concluded: int) -> None:
    """Slurm calls a job failed by this code, whatever became of single nodes."""
    assert through(stage, stage.script(Site(name="here"), "python"), srun=srun, CONCLUDED=str(concluded)) == concluded


def test_the_job_goes_on_with_the_run_that_it_was_given_to(stage: Stage) -> None:
    """At the end of the first run; and at once where Slurm starts the job again."""
    second = RunDir(stage.run.path.parent / "a second 'run'")
    second.jobs_dir.mkdir(parents=True)
    second.job_script.write_text('echo "$SLURM_JOB_ID goes on"\nexit 5\n')
    give = f"ln -sfn ../../{shlex.quote(second.name)} {stage.run.jobs_dir}/4711.next\n"
    stage.tool(stage.path / "bin/python", f'case " $* " in *" conclude "*) {give};; esac\n')
    script = stage.script(Site(name="here"), "python")
    assert through(stage, script) == 5
    assert second.job_log("4711").read_text() == "4711 goes on\n"
    assert [call[0] for call in stage.calls()] == ["srun", "python"]
    again = subprocess.run(["bash", script], cwd=stage.path / "cwd", env=stage.environment, check=False)
    assert again.returncode == 5
    assert second.job_log("4711").read_text() == "4711 goes on\n" * 2
    assert len(stage.calls()) == 2


def test_the_environment_comes_in_the_order_of_the_profile(stage: Stage) -> None:
    environment = {
        "setup": ["export STEP=setup", "module use /own"], "modules": ["lang/Python", "system/CUDA"], "conda": "search",
        "variables": {"STEP": "variables", "EMPTY_PATH": ":"},
    }  # fmt: skip
    through(stage, stage.script(Site(name="here", environment=environment), "/unused"))
    calls = stage.calls()
    assert calls[:5] == [
        ["module", "use", "/own"],
        ["module", "load", "lang/Python"],
        ["module", "load", "system/CUDA"],
        ["conda", "shell.bash", "hook"],
        ["conda", "activate", "search"],
    ]
    assert [call[0] for call in calls[5:]] == ["srun", "python"]
    assert stage.variables()["STEP"] == "variables"


def test_functions_of_the_shell_do_as_well(stage: Stage) -> None:
    """At a site module and conda are functions, conda's defined by its own hook."""
    hook = "case $1 in shell.bash) echo 'conda() { export CHOSEN=$2; }' ;; esac\n"
    stage.tool(stage.path / "bin/conda", hook)
    lmod = 'module() { export LOADED="$LOADED:$2"; }'
    environment = {"setup": [lmod], "modules": ["a", "b"], "conda": "search"}
    through(stage, stage.script(Site(name="here", environment=environment), "python"))
    assert (stage.variables()["LOADED"], stage.variables()["CHOSEN"]) == (":a:b", "search")


@pytest.mark.parametrize(
    "environment",
    [{"setup": ["false"]}, {"modules": ["missing"]}, {"conda": "missing"}, {"venv": "/nowhere"}],
)
def test_what_cannot_be_set_up_ends_the_job(stage: Stage, environment: dict[str, Any]) -> None:
    refuse = 'case " $* " in *" missing "*) echo "no such thing" >&2; exit 3 ;; esac\n'
    for tool in ("module", "conda"):
        stage.tool(stage.path / "bin" / tool, refuse)
    with stage.start(stage.script(Site(name="here", environment=environment), "python")) as job:
        job.communicate(timeout=20)
    assert job.returncode != 0
    assert not {"srun", "python"} & {call[0] for call in stage.calls()}


# ------------------------------------------------------------------------------- nothing gets in


def site_with(temp_dir: str = "/tmp", **environment: Any) -> Site:
    """Return a profile that holds values as they are: the checks of profiles would expand or refuse some."""
    site = Site(name="here")
    return site.model_copy(
        update={"temp_dir": temp_dir, "environment": site.environment.model_copy(update=environment)}
    )


def test_all_values_of_a_profile_arrive_as_they_are(stage: Stage) -> None:
    variables = {f"VALUE_{number}": value for number, value in enumerate(NASTY)}
    through(stage, stage.script(site_with(modules=NASTY, variables=variables), "python"))
    assert stage.calls()[:-2] == [["module", "load", value] for value in NASTY]
    assert {key: stage.variables()[key] for key in variables} == variables
    assert stage.left_behind() == set()


def test_all_options_of_a_container_arrive_as_they_are(stage: Stage) -> None:
    through(stage, stage.script(site_with(container="/i.sif", container_options=NASTY), "/unused"))
    srun, conclude = stage.calls()
    inside = ["apptainer", "exec", "--nv", *NASTY, "/i.sif", "python3", "-m"]
    assert after_options(srun)[: len(inside)] == inside
    assert conclude[: len(inside)] == inside
    assert stage.left_behind() == set()


WORST = [
    'it\'s "it" $(touch pwned) `touch pwned`',
    "a;touch pwned&touch pwned|touch pwned>pwned #x",
    "~root *?[a]{b,c} $HOME ${HOME} $1 !!",
    "-n --wrap=touch 50%j %%",
    "ü ß 🚀",
]
UNPRINTABLE = ["a\nb; touch pwned", "\\ \\\\n \\'"]


@pytest.mark.parametrize("value", [*WORST, *UNPRINTABLE])
def test_run_python_and_virtual_environment_may_lie_anywhere(tmp_path: Path, value: str) -> None:
    stage = stage_at(tmp_path, runs=value if value in WORST else "runs")
    stage.tool(tmp_path / value / "venv/bin/activate", "export ACTIVATED=yes\n")
    python = str(stage.tool(tmp_path / value / "bin/python3", PYTHON))
    site = site_with(venv=str(tmp_path / value / "venv"), python=python)
    through(stage, stage.script(site, "/unused"))
    _, srun, conclude = stage.calls()
    assert stage.variables()["ACTIVATED"] == "yes"
    assert after_options(srun)[:4] == [python, "-m", "hpc_tune.runtime.node", str(stage.run.path)]
    assert conclude[4] == str(stage.run.path)
    assert stage.left_behind() == set()


@pytest.mark.parametrize("value", WORST)
def test_every_other_value_arrives_as_it_is(tmp_path: Path, value: str) -> None:
    stage = stage_at(tmp_path)
    request = replace(
        REQUEST, gpu_type=value, partition=value, account=value, qos=value, constraint=value, exclude=value,
        sbatch={"comment": value, "reservation": f"x\\{value}"},
    )  # fmt: skip
    through(stage, stage.script(site_with(temp_dir=f"/{value}", conda=value), "/unused", request))
    _, conda, srun, _ = stage.calls()
    assert conda == ["conda", "activate", value]
    assert f"--gres=gpu:{value}:4" in srun
    assert after_options(srun)[0] == "python"
    assert f"--temp-dir=/{value}" in after_options(srun)
    assert stage.left_behind() == set()


# ------------------------------------------------------------------------------- signals


@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGUSR1, "walltime"), (signal.SIGTERM, "terminated")], ids=["walltime", "preemption"]
)
def test_a_signal_asks_to_stop_and_the_job_waits_on(stage: Stage, number: signal.Signals, cause: str) -> None:
    job = SlurmJob("4711")
    marker = stage.run.stop_marker("4711", 0)
    with started(stage, stage.script(Site(name="here"), "python"), CONCLUDED="5") as script:
        assert not marker.exists()
        script.send_signal(number)
        assert until(lambda: len(heard(marker)) == 1)
        script.send_signal(number)  # whoever answers a second one has waited on after the first
        assert until(lambda: len(heard(marker)) == 2)
        stage.srun_ends(0)
        assert script.wait(timeout=20) == 5
    assert [call[0] for call in stage.calls()] == ["srun", "python"]
    assert stage.run.stop_cause(job) == cause


def test_the_first_signal_is_the_cause(stage: Stage) -> None:
    """Near the walltime's end comes SIGUSR1, and SIGTERM when it is over."""
    marker = stage.run.stop_marker("4711", 0)
    with started(stage, stage.script(Site(name="here"), "python")) as script:
        script.send_signal(signal.SIGUSR1)
        assert until(marker.exists)
        script.send_signal(signal.SIGTERM)
        assert until(lambda: len(heard(marker)) == 2)
        stage.srun_ends(1)
        assert script.wait(timeout=20) == 0
    assert stage.run.stop_cause(SlurmJob("4711")) == "walltime"


def test_a_marker_belongs_to_one_start_of_the_job(stage: Stage) -> None:
    """A requeued job keeps its id: an old marker must not stop it."""
    with started(stage, stage.script(Site(name="here"), "python"), SLURM_RESTART_COUNT="2") as script:
        script.send_signal(signal.SIGUSR1)
        assert until(stage.run.stop_marker("4711", 2).exists)
        stage.srun_ends(0)
        script.wait(timeout=20)
    assert not stage.run.stop_marker("4711", 0).exists()


def test_a_stop_marker_lies_in_a_run_of_any_name(tmp_path: Path) -> None:
    stage = stage_at(tmp_path, runs='it\'s $(touch pwned) `touch pwned` %j "x"')
    with started(stage, stage.script(Site(name="here"), "python")) as script:
        script.send_signal(signal.SIGUSR1)
        assert until(stage.run.stop_marker("4711", 0).exists)
        stage.srun_ends(0)
        script.wait(timeout=20)
    assert stage.left_behind() == set()


def test_the_stand_ins_would_notice(stage: Stage) -> None:
    """The same stage, with a script that does not quote."""
    script = stage.path / "careless"
    script.write_text(f"cd {shlex.quote(str(stage.path / 'cwd'))}\nmodule load $(touch pwned) a b\n")
    with stage.start(script) as job:
        job.communicate(timeout=20)
    assert stage.calls() == [["module", "load", "a", "b"]]
    assert stage.left_behind() != set()
