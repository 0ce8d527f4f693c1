"""The best trial: its config, its checkpoint, and what is taken away."""

from __future__ import annotations

import json
import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hpc_tune.cli import cli
from hpc_tune.errors import RunError, UsageError
from hpc_tune.operations.best import best, export
from hpc_tune.results.toml import as_toml, nested
from hpc_tune.run import RunDir
from tests.unit.made_results import MadeTrials

CONFIG = {"lr": 1e-05, "layers": [1, 2], "opt": {"name": 'a "b"\\', "on": True}, "none": None, "a b": 3}


@pytest.fixture
def run(project: Any, runs_dir: Path) -> RunDir:
    created: RunDir = project.create_run(runs_dir, space={"lr": 0.1})
    trials = MadeTrials(created)
    trials.add("t_0", [0.1, 0.3, 0.2], checkpoints={2: b"two", 3: b"three"})
    trials.add("t_1", [0.4, 0.9, 0.5, 0.6], config=CONFIG, checkpoints={1: b"one", 3: b"three", 4: b"four"})
    return created


@pytest.fixture
def call(run: RunDir, runs_dir: Path) -> Callable[..., str]:
    def invoke(*arguments: str) -> str:
        result = CliRunner().invoke(cli, [*arguments, "--runs-dir", str(runs_dir)], prog_name="hpc-tune")
        assert result.exit_code == 0, result.output
        return result.stdout

    return invoke


def test_the_checkpoint_is_the_best_that_is_left(run: RunDir) -> None:
    found = best(run)
    assert (found.trial_id, found.value, found.iteration, found.config) == ("t_1", 0.9, 2, CONFIG)
    assert found.checkpoint is not None
    assert found.checkpoint.path == run.storage / "t_1" / "checkpoint_000003"
    assert (found.checkpoint.iteration, found.checkpoint.value) == (4, 0.6)


def test_a_damaged_checkpoint_is_passed_over(run: RunDir) -> None:
    (run.storage / "t_1" / "checkpoint_000003" / "state.pt").write_bytes(b"")
    checkpoint = best(run).checkpoint
    assert checkpoint is not None
    assert (checkpoint.path.name, checkpoint.value) == ("checkpoint_000002", 0.5)


def test_a_class_trainables_newest_checkpoint_has_to_do(project: Any, runs_dir: Path) -> None:
    run = project.create_run(runs_dir)
    folder = MadeTrials(run).add("t_0", [0.1])
    for name in ("checkpoint_000000", "checkpoint_000001"):
        (folder / name).mkdir()
        (folder / name / "x").write_text("x")
    checkpoint = best(run).checkpoint
    assert checkpoint is not None
    assert (checkpoint.path, checkpoint.iteration) == (folder / "checkpoint_000001", None)


def test_before_any_result_there_is_no_best(project: Any, runs_dir: Path) -> None:
    with pytest.raises(RunError, match="has reported accuracy yet") as caught:
        best(project.create_run(runs_dir))
    assert caught.value.hint is not None


def test_toml_is_a_space_of_constants(run: RunDir) -> None:
    text = best(run).toml
    assert "# none: null cannot be written in TOML" in text
    assert tomllib.loads(text) == {"space": {key: value for key, value in CONFIG.items() if key != "none"}}


@pytest.mark.parametrize(
    "config",
    [
        {"a": {"b.c": {"d": 1}}, "e": 2},
        {"x": "line\nend\ttab\x7f\x01é", "y": [{"z": 1}, {"z": [True, 2.5]}], "": 0},
        {"big": 2**70, "tiny": 1e-300, "whole": 1e22, "negative": -0.5},
        {},
    ],
)
def test_what_toml_can_say_comes_back(config: dict[str, Any]) -> None:
    assert tomllib.loads(as_toml(config))["space"] == config


def test_flat_names_become_tables() -> None:
    assert nested({"lr": 1, "opt/name": "sgd", "opt/wd": 2}) == {"lr": 1, "opt": {"name": "sgd", "wd": 2}}


@pytest.mark.parametrize("name", ["best.tar", "best.tar.gz", "best.tgz"])
def test_an_archive_holds_all_that_one_needs(run: RunDir, tmp_path: Path, name: str) -> None:
    export(best(run), tmp_path / name)
    with tarfile.open(tmp_path / name) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    check_export(run, tmp_path / "out" / "best")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_directory_holds_the_same(run: RunDir, tmp_path: Path) -> None:
    export(best(run), tmp_path / "new" / "best")
    check_export(run, tmp_path / "new" / "best")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["best"]


def check_export(run: RunDir, folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint", "config.json", "config.toml", "provenance.json",
    ]  # fmt: skip
    assert (folder / "checkpoint" / "state.pt").read_bytes() == b"four"
    assert json.loads((folder / "config.json").read_text()) == CONFIG
    provenance = json.loads((folder / "provenance.json").read_text())
    record = run.record()
    assert provenance["run"] == run.name
    assert (provenance["trial"], provenance["best_value"], provenance["checkpoint_value"]) == ("t_1", 0.9, 0.6)
    assert provenance["spec_hash"] == record["spec_hash"]
    assert provenance["versions"] == record["versions"]


def test_nothing_is_overwritten(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "best.tar").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        export(best(run), tmp_path / "best.tar")
    assert (tmp_path / "best.tar").read_text() == "mine"


def test_without_a_checkpoint_there_is_nothing_to_export(project: Any, runs_dir: Path, tmp_path: Path) -> None:
    run = project.create_run(runs_dir)
    MadeTrials(run).add("t_0", [0.1])
    with pytest.raises(RunError, match="has left no checkpoint") as caught:
        export(best(run), tmp_path / "best.tar")
    assert caught.value.hint is not None
    assert "--toml" in caught.value.hint
    assert not (tmp_path / "best.tar").exists()


def test_the_command_shows_value_config_and_checkpoint(call: Callable[..., str], run: RunDir, tmp_path: Path) -> None:
    said = call("best", "--export", str(tmp_path / "out.tar"))
    assert said.startswith(f"accuracy 0.9: trial t_1 of {run.name}, iteration 2\n[space]\n")
    assert f"checkpoint: {run.storage}/t_1/checkpoint_000003 (iteration 4, accuracy 0.6)\n" in said
    assert said.endswith(f"exported to {tmp_path}/out.tar\n")
    assert call("best", "--toml") == best(run).toml
    record = json.loads(call("best", "--json"))
    assert (record["schema"], record["trial"], record["config"]) == (1, "t_1", CONFIG)
    assert record["exported"] is None


def test_the_report_command_says_where(call: Callable[..., str], run: RunDir) -> None:
    assert call("report").startswith(f"report: {run.path}/report.html (")
    record = json.loads(call("report", run.name, "--json"))
    assert record["file"] == f"{run.path}/report.html"
    assert record["runs"] == [run.name]
    assert "learning-curves" in record["plots"]


def test_two_forms_at_once_are_refused(run: RunDir, runs_dir: Path) -> None:
    result = CliRunner().invoke(cli, ["best", "--json", "--toml", "--runs-dir", str(runs_dir)])
    assert result.exit_code == 2
    assert "choose one" in result.output
