"""The job script as text: byte for byte, clean by bash and shellcheck, each directive as Slurm reads it.

After a wanted change: ``HPC_TUNE_WRITE_GOLDEN=1 pytest tests/unit/test_jobscript.py``, then look at the difference.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hpc_tune.errors import RunError
from hpc_tune.experiment.allocation import Allocation
from hpc_tune.experiment.spec import TrialResources
from hpc_tune.jobscript import render_job_script
from hpc_tune.request import JobRequest, resolve_request
from hpc_tune.run import RunDir
from hpc_tune.site import Site, list_sites

GOLDEN = Path(__file__).with_name("golden")
RUN = Path("/scratch/users/ada/runs/digits-20261122-101500")
PYTHON = "/home/users/ada/search/bin/python"
GPU_TRIAL = TrialResources(cpus=7, gpus=1)
SITES = {file.name: file for file in list_sites() if not file.own}


def script(
    allocation: Mapping[str, Any],
    site: Site | None = None,
    trial: TrialResources = GPU_TRIAL,
    run: Path = RUN,
    python: str = PYTHON,
) -> str:
    """Return the script for the allocation of an experiment file, as a submission would render it."""
    site = site or Site(name="anywhere")
    request = resolve_request(Allocation(**allocation), site, trial, environ={})
    return render_job_script(request, site, run=run, python=python)


def shipped(name: str, **environment: Any) -> Site:
    site = SITES[name].load()
    return Site.model_validate(site.model_dump(exclude_defaults=True) | {"environment": environment})


CASES = {
    "iris_gpus": lambda: script({"nodes": 4, "time": "2h"}, shipped("iris")),
    "aion_cpus": lambda: script({"nodes": 2}, shipped("aion"), TrialResources(cpus=16)),
    "nothing_known": lambda: script({}),
    "container": lambda: script(
        {"nodes": 2, "gpus_per_node": 4, "time": "30m"},
        shipped("iris", container="/project/images/torch 2.sif", container_options=["--bind", "/scratch:/scratch"]),
    ),
    "conda": lambda: script(
        {"gpus_per_node": 1},
        shipped(
            "iris",
            setup=["source /etc/profile.d/lmod.sh", "ulimit -c 0"],
            modules=["lang/Anaconda3/2024.02", "system/CUDA/12.6"],
            conda="search",
            variables={"HF_HUB_OFFLINE": "1", "GREETING": "it's $5"},
        ),
    ),
    "everything": lambda: script(
        {
            "nodes": 3, "min_nodes": 2, "start_timeout": "5m", "cpus_per_node": 14, "gpus_per_node": 2,
            "gpu_type": "volta", "memory": "64G", "time": "1-12:00:00", "grace": "10m", "partition": "gpu",
            "qos": "high", "account": "project-7", "constraint": "volta32&skylake",
            "exclude": "iris-[169-170],iris-180",
            "sbatch": {
                "mail_type": "END,FAIL", "reservation": "course 7", "exclusive": True, "spread_job": False, "nice": 100,
            },
        },
        Site(
            name="everything", temp_dir="/local/scratch", interface="ib0", next_attempt="requeue",
            sbatch={"comment": 'the "big" one', "mail-type": "ALL"},
            environment={
                "setup": ["umask 077"], "modules": ["lang/Python", "system/CUDA"], "venv": "/home/users/ada/v",
                "python": "/home/users/ada/v/bin/python3", "variables": {"A": "1", "B": "two words"},
            },
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_script_is_the_one_on_file(case: str) -> None:
    rendered = CASES[case]()
    golden = GOLDEN / f"{case}.sbatch"
    if os.environ.get("HPC_TUNE_WRITE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(rendered, encoding="utf-8")
    assert rendered == golden.read_text(encoding="utf-8")


def test_every_script_on_file_has_a_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.sbatch")} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_a_script_is_short_and_bash_reads_it(case: str) -> None:
    rendered = CASES[case]()
    assert len(rendered.splitlines()) <= 60
    assert rendered.endswith("\n")
    done = subprocess.run(["bash", "-n"], input=rendered, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("case", CASES)
def test_shellcheck_has_nothing_to_say(case: str) -> None:
    if shutil.which("shellcheck") is None:
        if os.environ.get("CI"):
            pytest.fail("shellcheck is missing: in CI everything runs")
        pytest.skip("shellcheck is not installed")
    # SC1091: it cannot look into files of the cluster; SC2016: values are not meant to be expanded
    command = ["shellcheck", "--norc", "--exclude=SC1091,SC2016", "-"]
    done = subprocess.run(command, input=CASES[case](), text=True, capture_output=True)
    assert (done.returncode, done.stdout) == (0, "")


# ------------------------------------------------------------------------------- as Slurm reads it


def slurm_words(line: str) -> list[str]:
    """Split a directive as sbatch does.

    Backslashes escape everywhere, quotes of both kinds group, an open ``#`` begins a comment, and nothing is expanded.
    """
    words: list[str] = []
    word: str | None = None
    quote, escaped = "", False
    for character in line:
        if escaped:
            word, escaped = (word or "") + character, False
        elif character == "\\":
            word, escaped = word or "", True
        elif quote:
            quote, word = ("", word) if character == quote else (quote, (word or "") + character)
        elif character in "\"'":
            quote, word = character, word or ""
        elif character == "#":
            break
        elif character.isspace():
            words, word = ([*words, word] if word is not None else words), None
        else:
            word = (word or "") + character
    assert not quote, f"an open quote: {line}"
    return words if word is None else [*words, word]


def directives(text: str) -> dict[str, str | bool]:
    """Return the options that sbatch takes from a script: it looks no further than the first command."""
    found: dict[str, str | bool] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            break
        if line.startswith("#SBATCH"):
            for word in slurm_words(line.removeprefix("#SBATCH")):
                assert word.startswith("--"), f"no option: {line}"
                name, sign, value = word[2:].partition("=")
                assert name not in found, f"twice: {line}"
                found[name] = value if sign else True
    return found


def log_path(pattern: str, job_id: str) -> str:
    """Fill in a file name as Slurm does; with a backslash in it Slurm would not."""
    assert "\\" not in pattern
    return "%".join(part.replace("%j", job_id) for part in pattern.split("%%"))


NASTY = [
    "it's", 'say "hi"', "two  words", "$(touch pwned)", "`touch pwned`", "a;touch pwned", "a&&touch pwned|cat",
    "a>pwned", "-n", "--wrap=touch pwned", "%j%%j%", "50%j.log", "#x", "a #SBATCH --nodes=9", "\\", 'a\\"b', "\\\\n",
    "*", "?[a]{b,c}", "~root", "!!", "$HOME ${HOME} $1", "ü ß 🚀", "=", "'\"$(touch pwned)`touch pwned`\\",
]  # fmt: skip


@pytest.mark.parametrize("value", NASTY)
def test_slurm_gets_each_value_as_it_was_written(value: str) -> None:
    texts = ("partition", "qos", "account", "constraint", "exclude")
    extras = {"comment": value, "reservation": value, "overcommit": True}
    allocation = dict.fromkeys(texts, value) | {"gpus_per_node": 2, "gpu_type": value, "sbatch": extras}
    found = directives(script(allocation))
    assert {key: found[key] for key in (*texts, *extras)} == dict.fromkeys(texts, value) | extras
    assert found["gres"] == f"gpu:{value}:2"
    assert found["nodes"] == "1"


@pytest.mark.parametrize("folder", [each for each in NASTY if "\\" not in each])
def test_slurm_writes_the_log_where_we_look_for_it(folder: str) -> None:
    run = RunDir(Path("/scratch") / folder / "digits-1")
    found = directives(script({}, run=run.path))
    assert log_path(str(found["output"]), "4711") == str(run.job_log("4711"))
    assert found["job-name"] == "digits-1"


@pytest.mark.parametrize("folder", ["a\nb", "a\\b", "a\tb", "a\x1b[1m"])
def test_a_path_that_no_script_can_hold_is_refused(folder: str) -> None:
    with pytest.raises(RunError, match="cannot be written in a job script") as caught:
        script({}, run=Path("/scratch") / folder / "digits-1")
    assert caught.value.hint == "choose another --runs-dir"


@pytest.mark.parametrize("value", ["a\nb", "a\r#SBATCH --nodes=9", "", "a\0b"])
@pytest.mark.parametrize("key", ["partition", "qos", "account", "constraint", "exclude", "gpu_type"])
def test_a_line_cannot_end_early(key: str, value: str) -> None:
    with pytest.raises(ValidationError):
        Allocation(**{key: value})


@pytest.mark.parametrize("key", ["conda", "venv", "container", "python", "modules"])
def test_a_word_of_the_environment_is_no_option(key: str) -> None:
    for value in ("-x", "--help"):
        with pytest.raises(ValidationError, match="begins with a dash"):
            shipped("generic", **{key: [value] if key == "modules" else value})


def test_the_python_is_that_of_the_environment() -> None:
    def python(**environment: Any) -> str:
        return next(line for line in script({}, shipped("generic", **environment)).splitlines() if "python=" in line)

    assert python() == f"python=({PYTHON})"
    assert python(conda="search") == python(venv="/v") == "python=(python)"
    assert python(container="/i.sif") == "python=(apptainer exec --nv /i.sif python3)"
    assert python(venv="/v", python="/v/bin/python3.12") == "python=(/v/bin/python3.12)"


def test_the_file_itself_is_not_rendered_twice() -> None:
    """A value that looks like a template is a value."""
    found = directives(script({"account": "{{ run }}", "qos": "{% if %}", "constraint": "{# x #}"}))
    assert (found["account"], found["qos"], found["constraint"]) == ("{{ run }}", "{% if %}", "{# x #}")


# ------------------------------------------------------------------------------- what is asked for


def test_what_is_not_asked_for_is_left_to_slurm() -> None:
    found = directives(script({}, trial=TrialResources(cpus=2)))
    left_open = ("gres", "mem", "time", "partition", "qos", "account", "constraint", "exclude")
    assert not set(left_open) & set(found)
    assert (found["nodes"], found["cpus-per-task"], found["ntasks-per-node"]) == ("1", "2", "1")


def test_a_search_outlives_its_nodes_and_its_logs_are_kept() -> None:
    found = directives(script({"nodes": 4}))
    assert found["no-kill"] is found["requeue"] is True
    assert found["open-mode"] == "append"


@pytest.mark.parametrize(
    ("time", "written"), [("90s", "00:01:30"), ("2h", "02:00:00"), ("14d", "336:00:00"), ("0.4s", "00:00:01")]
)
def test_the_walltime(time: str, written: str) -> None:
    """Zero would mean that there is none."""
    assert directives(script({"time": time}))["time"] == written


@pytest.mark.parametrize(("grace", "written"), [("2m", "B:USR1@120"), ("90s", "B:USR1@90"), ("0.2s", "B:USR1@1")])
def test_the_signal_goes_to_the_script_alone(grace: str, written: str) -> None:
    """Every other process would die of it; and a signal zero seconds before the end would come a minute before."""
    assert directives(script({"grace": grace}))["signal"] == written


def test_a_directive_of_the_experiment_beats_the_sites_and_false_leaves_it_out() -> None:
    site = Site(name="here", sbatch={"comment": "the site's", "exclusive": True})
    found = directives(script({"sbatch": {"comment": "mine", "exclusive": False}}, site))
    assert found["comment"] == "mine"
    assert "exclusive" not in found


def test_the_same_request_gives_the_same_bytes() -> None:
    request = JobRequest(nodes=2, cpus_per_node=4, sbatch={"comment": "x"})
    site = Site(name="here")
    once = render_job_script(request, site, run=RUN, python=PYTHON)
    assert once == render_job_script(replace(request), site, run=RUN, python=PYTHON)
