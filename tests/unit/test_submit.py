"""From an experiment to a Slurm job: what is said before, what is left behind, and what when Slurm refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hpc_tune.attempt import Submission
from hpc_tune.cli import cli
from hpc_tune.cli.allocation import allocation_overrides
from hpc_tune.errors import ExperimentError, SlurmError
from hpc_tune.experiment.load import load_experiment, parse_override
from hpc_tune.operations.planning import Plan, plan
from hpc_tune.operations.submit import submit
from hpc_tune.run import RunDir
from hpc_tune.slurm.commands import ClusterConfig
from tests.unit.test_jobscript import NASTY

NAME = "search-20261122-101500"
SBATCH = """\
#!/bin/sh
here=${0%/*}
printf '%s\\n' "$@" >"$here/sbatch.argv"
if [ -f "$here/refusal" ]; then
    while IFS= read -r line; do echo "$line" >&2; done <"$here/refusal"
    exit 1
fi
echo 4711
"""
SCONTROL = "#!/bin/sh\nprintf '%s\\n' 'ClusterName             = iris' 'SLURM_VERSION           = 22.05.8'\n"


@dataclass
class FakeSlurm:
    """Keeps the protocol of hpc_tune.slurm.client.Slurm, as far as it is needed to submit."""

    cluster: str = "iris"
    fails: Exception | None = None
    sent: list[str] = field(default_factory=list)
    is_installed: bool = True

    def config(self) -> ClusterConfig:
        return ClusterConfig(self.cluster)

    def submit(self, script: Path, *, dependency: str | None = None, extra: Sequence[str] = ()) -> tuple[str, str]:
        if self.fails is not None:
            raise self.fails
        self.sent.append(script.read_text(encoding="utf-8"))
        return "4711", "iris"


class Login:
    """A login node: commands on its PATH, a scratch file system, an experiment's folder to work in."""

    def __init__(self, tmp_path: Path, folder: Path) -> None:
        self.bin = tmp_path / "bin"
        self.scratch = tmp_path / "scratch"
        self.folder = folder
        self.bin.mkdir()

    def command(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o700)

    def has_slurm(self, refusal: str | None = None) -> Login:
        self.command("sbatch", SBATCH)
        self.command("scontrol", SCONTROL)
        if refusal is not None:
            (self.bin / "refusal").write_text(refusal)
        return self

    @property
    def runs(self) -> Path:
        return self.scratch / "hpc-tune/runs"

    def sent(self) -> list[str] | None:
        """Return sbatch's arguments, or None if it was not called."""
        argv = self.bin / "sbatch.argv"
        return argv.read_text().splitlines() if argv.exists() else None

    def files(self) -> set[str]:
        return {str(path) for root in (self.folder, self.scratch) for path in root.rglob("*")}


@pytest.fixture
def login(project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    made = Login(tmp_path, project.path)
    for name in [name for name in os.environ if name.startswith(("SBATCH_", "SLURM_", "HPC_TUNE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.setenv("SCRATCH", str(made.scratch))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(project.path)
    for module in ("hpc_tune.run", "hpc_tune.operations.planning"):
        monkeypatch.setattr(f"{module}.stamped_name", lambda name: f"{name}-20261122-101500")
    project.json(num_samples=100, trial={"cpus": 7, "gpus": 1})
    return made


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["submit", *arguments], prog_name="hpc-tune")


def refused(exit_code: int, *arguments: str) -> str:
    result = call(*arguments)
    assert result.exit_code == exit_code, result.output
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stderr


def planned(project: Any, *overrides: str, slurm: Any = None, runs_dir: Path | None = None, **changes: Any) -> Plan:
    found = FakeSlurm() if slurm is None else slurm
    return plan(project.json(**changes), runs_dir=runs_dir, overrides=overrides, slurm=found)


# ------------------------------------------------------------------------------- what it says before


@pytest.mark.parametrize("searcher", [{"name": "random"}, {"name": "optuna"}, {"name": "hyperopt"}])
@pytest.mark.parametrize(
    ("samples", "trial", "nodes", "at_once", "limit"),
    [
        (100, {"cpus": 7, "gpus": 1}, 4, 16, "GPUs"),
        (16, {"cpus": 7, "gpus": 1}, 4, 16, "trials"),
        (3, {"cpus": 7, "gpus": 1}, 4, 3, "trials"),
        (100, {"cpus": 3, "gpus": 0.5}, 2, 16, "GPUs"),
        (100, {"cpus": 1, "gpus": 0.4}, 1, 8, "GPUs"),
        (100, {"cpus": 7, "gpus": 0.5}, 4, 16, "CPUs"),
        (100, {"cpus": 1, "gpus": 4}, 4, 4, "GPUs"),
        (100, {"cpus": 28, "gpus": 1}, 2, 2, "CPUs"),
    ],
)
def test_trials_at_once_and_what_limits_them(
    project: Any, login: Login, searcher: Any, samples: int, trial: Any, nodes: int, at_once: int, limit: str
) -> None:
    """All slots are used whatever the searcher: asked for one trial at a time, it would leave the others idle."""
    space = {"lr": {"uniform": [0, 1]}}
    found = planned(
        project, num_samples=samples, trial=trial, searcher=searcher, space=space, allocation={"nodes": nodes}
    )
    assert (found.trials, found.at_once, found.limited_by) == (samples, at_once, limit)


def test_trials_of_a_grid(project: Any, login: Login) -> None:
    space = {"lr": {"grid": [1, 2, 3]}, "layers": {"grid": [1, 2]}}
    found = planned(project, num_samples=2, space=space, allocation={"nodes": 2, "partition": "batch"})
    assert (found.trials, found.at_once, found.limited_by) == (12, 12, "trials")


def test_trials_that_can_do_without_gpus(project: Any, login: Login) -> None:
    trial = {"cpus": 16, "gpus": 1, "gpu_optional": True}
    found = planned(project, slurm=FakeSlurm("aion"), num_samples=100, trial=trial, allocation={"nodes": 2})
    assert (found.request.gpus_per_node, found.at_once, found.limited_by) == (0, 16, "CPUs")


@pytest.mark.parametrize(("checkpoint", "files"), [({}, 9), ({"keep": 1}, 7), ({"keep": 5}, 15)])
def test_files_per_trial(project: Any, login: Login, checkpoint: Any, files: int) -> None:
    found = planned(project, checkpoint=checkpoint)
    assert found.files_per_trial == files
    assert planned(project, checkpoint=checkpoint, tensorboard=False).files_per_trial == files - 1
    assert found.free_files is None or found.free_files > 0


def test_a_plan_changes_nothing(project: Any, login: Login) -> None:
    project.json()
    before = login.files()
    planned(project)
    assert login.files() == before


def test_where_the_run_is_going_to_be(
    project: Any, login: Login, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert planned(project, runs_dir=tmp_path / "mine").run_path == tmp_path / "mine" / NAME
    assert planned(project).run_path == login.runs / NAME
    monkeypatch.delenv("SCRATCH")
    without = planned(project)
    assert without.run_path == project.path / "runs" / NAME
    assert "$SCRATCH is not set here" in " ".join(without.notes)


def test_how_the_site_was_found(project: Any, login: Login) -> None:
    found = planned(project)
    assert (found.site.name, found.site_from) == ("iris", "knows cluster iris")
    named = planned(project, "allocation.site=aion")
    assert (named.site.name, named.site_from) == ("aion", "named")
    nowhere = plan(project.json(), runs_dir=None, overrides=[], slurm=None)
    assert (nowhere.site.name, nowhere.site_from) == ("generic", "there is no Slurm here")


def test_what_the_site_does_not_have_is_refused(project: Any, login: Login) -> None:
    with pytest.raises(ExperimentError) as caught:
        planned(project, allocation={"nodes": 5}, trial={"gpus": 1})
    assert [str(fault) for fault in caught.value.faults] == [
        "allocation.nodes: at most 4 nodes per job in partition gpu; use --nodes 4"
    ]


# ------------------------------------------------------------------------------- what comes of it


def test_what_a_user_reads(login: Login) -> None:
    login.has_slurm()
    result = call("search.json", "--nodes", "4", "--time", "8h")
    assert result.exit_code == 0, result.output
    said = [line.partition("; ")[0] if line.startswith("files") else line for line in result.stdout.splitlines()]
    assert said == [
        "asks for 4 nodes with 28 CPUs and 4 GPUs each in partition gpu of iris (knows cluster iris)",
        "trials   100, 16 at a time, limited by the number of GPUs",
        "files    about 9 per trial, 900 in all",
        "walltime 8 h 00 min; 2 min 00 s before its end the search is saved, then a successor job goes on",
        f"job      4711, run {NAME}; follow it with: hpc-tune status {NAME}",
    ]
    assert result.stderr == ""


def test_what_to_know_of_a_legal_request_is_said(login: Login) -> None:
    login.has_slurm()
    result = call("search.json", "--qos", "besteffort")
    assert "note: the job may be preempted; it then waits for nodes again and continues\n" in result.stdout


def test_what_a_program_reads(login: Login) -> None:
    login.has_slurm()
    result = call("search.json", "--nodes", "2", "--qos", "besteffort", "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    free = shown.pop("free_files")
    assert free is None or free > 0
    assert shown == {
        "schema": 1,
        "run": NAME,
        "path": str(login.runs / NAME),
        "job_id": "4711",
        "site": "iris",
        "nodes": 2,
        "gpus_per_node": 4,
        "cpus_per_node": 28,
        "time_seconds": 7200.0,
        "trials": 100,
        "trials_at_once": 8,
        "limited_by": "GPUs",
        "files_per_trial": 9,
        "notes": ["the job may be preempted; it then waits for nodes again and continues"],
    }


def test_the_run_has_everything_that_its_job_needs(login: Login) -> None:
    login.has_slurm()
    assert call("search.json", "--nodes", "2", "--set", "seed=7", "--sbatch", "comment=it's").exit_code == 0
    run = RunDir(login.runs / NAME)
    assert login.sent() == ["--parsable", str(run.job_script)]
    assert run.path.stat().st_mode & 0o777 == 0o700
    assert run.jobs_dir.is_dir()  # Slurm opens the log there, before anything of ours runs
    (submission,) = run.submissions()
    assert (submission.job_id, submission.by) == ("4711", "submit")
    assert f"#SBATCH --output={run.jobs_dir}/%j.log\n" in run.job_script.read_text()
    record = run.record()
    assert record["seed"] == 7
    again = load_experiment(run.experiment_file, record["overrides"], folder=run.code)  # as the driver reads it
    assert again.experiment.allocation.nodes == 2
    assert again.experiment.allocation.sbatch == {"comment": "it's"}
    assert again.experiment.seed == 7


def test_a_run_without_a_seed_gets_one_for_all_its_attempts(project: Any, login: Login) -> None:
    login.has_slurm()
    call("search.json")
    first = RunDir(login.runs / NAME).record()["seed"]
    assert 0 <= first < 2**32


def test_a_run_elsewhere_is_found_from_here(project: Any, login: Login) -> None:
    login.has_slurm()
    call("search.json")
    assert (project.path / "runs" / NAME).resolve() == login.runs / NAME
    found = CliRunner().invoke(cli, ["status", "--json", "search"])
    assert json.loads(found.stdout)["path"] == str(login.runs / NAME)


def test_a_run_here_is_no_link(project: Any, login: Login) -> None:
    login.has_slurm()
    call("search.json", "--runs-dir", "runs")
    assert not (project.path / "runs" / NAME).is_symlink()
    assert (project.path / "runs" / NAME / "run.json").is_file()


def test_the_experiment_may_be_left_out(project: Any, login: Login) -> None:
    login.has_slurm()
    project.write("pyproject.toml", '[tool.hpc-tune]\nexperiment = "search.json"\n')
    assert call("--nodes", "4").exit_code == 0


# ------------------------------------------------------------------------------- dry run


def test_a_dry_run_prints_the_bytes_that_would_be_sent(login: Login) -> None:
    login.has_slurm()
    arguments = ["search.json", "--nodes", "4", "--account", 'it\'s "ours"']
    before = login.files()
    shown = call(*arguments, "--dry-run")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert login.sent() is None
    assert login.files() == before
    call(*arguments)
    assert shown.stdout_bytes == (login.runs / NAME / "job.sbatch").read_bytes()


def test_a_dry_run_as_json(login: Login) -> None:
    arguments = ["search.json", "--nodes", "4", "--site", "iris", "--dry-run"]
    record = json.loads(call(*arguments, "--json").stdout)
    assert record["script"] == call(*arguments).stdout
    assert (record["nodes"], record["path"]) == (4, str(login.runs / NAME))
    assert "job_id" not in record


def test_a_dry_run_needs_no_slurm(login: Login) -> None:
    before = login.files()
    result = call("search.json", "--nodes", "4", "--site", "iris", "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.startswith("#!/bin/bash\n")
    assert "#SBATCH --nodes=4\n" in result.stdout
    assert login.files() == before


# ------------------------------------------------------------------------------- when it cannot be


def test_without_slurm_there_are_two_other_ways(login: Login) -> None:
    before = login.files()
    answer = refused(4, "search.json")
    assert answer == (
        "error: sbatch is not on this machine: Slurm is missing\n"
        "hint: run the search on this machine: hpc-tune run; or see the script: hpc-tune submit --dry-run\n"
    )
    assert login.files() == before


def test_a_refusal_names_the_key_and_leaves_nothing(login: Login) -> None:
    login.has_slurm("sbatch: error: Batch job submission failed: Invalid account or account/partition combination\n")
    before = login.files()
    answer = refused(4, "search.json", "--account", "nobody")
    assert answer.startswith("error: Slurm refused (sbatch): Invalid account or account/partition combination")
    assert "--account" in answer
    assert not {path for path in login.files() - before if Path(path).is_file()}
    assert not (login.runs / NAME).exists()
    assert not (login.folder / "runs").exists()


def test_a_refusal_touches_no_other_run(login: Login) -> None:
    login.has_slurm()
    assert call("search.json").exit_code == 0
    (login.bin / "refusal").write_text("sbatch: error: Invalid qos specification\n")
    before = login.files()
    refused(4, "search.json", "--qos", "low")
    assert login.files() == before


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), SlurmError("refused")])
def test_whatever_goes_wrong_before_the_job_is_there_leaves_nothing(
    project: Any, login: Login, failure: Exception
) -> None:
    slurm: Any = FakeSlurm(fails=failure)
    with pytest.raises(type(failure)):
        submit(planned(project, slurm=slurm), overrides=[], slurm=slurm)
    assert not (login.runs / NAME).exists()


def test_a_job_that_may_be_there_after_all_keeps_its_run(project: Any, login: Login) -> None:
    slurm: Any = FakeSlurm(fails=SlurmError("sbatch did not answer within 120 s", outcome_unknown=True))
    with pytest.raises(SlurmError, match="did not answer"):
        submit(planned(project, slurm=slurm), overrides=[], slurm=slurm)
    assert (login.runs / NAME / "job.sbatch").is_file()


def test_a_submission_is_put_on_record_with_its_cluster(project: Any, login: Login) -> None:
    slurm: Any = FakeSlurm()
    sent = submit(planned(project, slurm=slurm), overrides=[], slurm=slurm)
    assert sent.job_id == "4711"
    assert slurm.sent == [sent.run.job_script.read_text(encoding="utf-8")]
    record = Submission.read(sent.run.jobs_dir / "4711.json")
    assert record is not None
    assert (record.cluster, record.by) == ("iris", "submit")


def test_two_runs_of_one_second_have_a_script_each(project: Any, login: Login) -> None:
    slurm: Any = FakeSlurm()
    first, second = (submit(planned(project, slurm=slurm), overrides=[], slurm=slurm) for _ in range(2))
    assert second.run.name == f"{NAME}-2"
    assert f"/{NAME}-2/" in slurm.sent[1]
    assert f"/{NAME}-2/" not in slurm.sent[0]
    assert first.run.job_script.read_text() == slurm.sent[0]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--nodes", "0"], "0 is not in the range x>=1"),
        (["--gpus-per-node", "-1"], "-1 is not in the range x>=0"),
        (["--nodes", "5"], "allocation.nodes: at most 4 nodes per job in partition gpu; use --nodes 4"),
        (["--nodes", "2", "--min-nodes", "3"], "allocation.min_nodes"),
        (["--time", "soon"], "allocation.time: expected a time"),
        (["--memory", "lots"], 'allocation.memory: expected a size such as "64G"'),
        (["--sbatch", "gres=gpu:1"], "--gpus-per-node"),
        (["--sbatch", "mem"], "--memory"),
        (["--sbatch", "=5"], "expected KEY=VALUE"),
        (["--qos", "hihg"], "did you mean 'high'"),
        (["--site", "irsi"], "did you mean 'iris'"),
        (["--partition", "a\nb"], "allocation.partition: expected printable text on one line"),
    ],
)
def test_mistakes_are_answered_with_the_key_before_anything_is_made(
    login: Login, arguments: list[str], answer: str
) -> None:
    login.has_slurm()
    before = login.files()
    assert answer in refused(2, "search.json", *arguments)
    assert login.sent() is None
    assert login.files() == before


# ------------------------------------------------------------------------------- options


@pytest.mark.parametrize("value", [*NASTY, "a\nb", "12", "true", "1979-05-27", "[1]", '"quoted"', "", "a\tb"])
def test_an_option_means_what_was_typed(value: str) -> None:
    """Its way leads through the texts of --set, which are TOML."""
    (text,) = allocation_overrides(qos=value)
    assert parse_override(text) == (["allocation", "qos"], value)
    (directive,) = allocation_overrides(directives=(f"comment={value}",))
    assert parse_override(directive) == (["allocation", "sbatch", "comment"], value)


def test_options_that_are_not_given_change_nothing() -> None:
    assert allocation_overrides(nodes=None, qos=None) == ()
    assert allocation_overrides(nodes=4, gpus_per_node=0) == ("allocation.nodes=4", "allocation.gpus_per_node=0")


def test_further_directives() -> None:
    given = ("--exclusive", "mail-type=END", "comment=a=b")
    assert [parse_override(text) for text in allocation_overrides(directives=given)] == [
        (["allocation", "sbatch", "exclusive"], True),
        (["allocation", "sbatch", "mail-type"], "END"),
        (["allocation", "sbatch", "comment"], "a=b"),
    ]


def test_every_option_of_the_allocation_reaches_the_script(login: Login) -> None:
    login.has_slurm()
    options = [
        "--nodes=3", "--gpus-per-node=2", "--cpus-per-node=14", "--memory=64G", "--time=90m", "--partition=gpu",
        "--qos=high", "--account=ours", "--constraint=volta32", "--exclude=iris-169", "--sbatch=nice=5",
        "--min-nodes=2",
    ]  # fmt: skip
    shown = call("search.json", "--dry-run", *options).stdout
    for line in (
        "nodes=3", "gres=gpu:2", "cpus-per-task=14", "mem=64G", "time=01:30:00", "partition=gpu", "qos=high",
        "account=ours", "constraint=volta32", "exclude=iris-169", "nice=5",
    ):  # fmt: skip
        assert f"#SBATCH --{line}\n" in shown
    assert " --min-nodes=2 " in shown


def test_help_shows_how_it_is_typed() -> None:
    result = call("--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: hpc-tune submit [OPTIONS] [EXPERIMENT]...\n")
    assert "\n  hpc-tune submit --nodes 4\n" in result.stdout
    assert "--dry-run" in result.stdout
