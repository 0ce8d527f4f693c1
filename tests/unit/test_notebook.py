"""What a notebook gets: the same values as the commands, and tables with the columns of the CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas
import pytest

import hpc_tune
from hpc_tune.errors import ExperimentError, RunError, RunNotFound, UsageError
from hpc_tune.operations.status import status
from hpc_tune.operations.tables import collect
from hpc_tune.run import RunDir
from tests.unit.made_results import MadeTrials, curve
from tests.unit.made_runs import MadeRun, ended


@pytest.fixture
def run(project: Any, runs_dir: Path) -> RunDir:
    created: RunDir = project.create_run(runs_dir, space={"lr": {"uniform": [0, 1]}})
    trials = MadeTrials(created)
    for number in range(3):
        trials.add(f"t_{number}", curve(0.3 * number, 4), config={"lr": 0.1 * number}, checkpoints={4: b"x"})
    return created


@pytest.mark.parametrize("name", ["path", "name", "prefix", "latest"])
def test_a_run_is_found_as_on_the_command_line(run: RunDir, runs_dir: Path, name: str) -> None:
    reference = {"path": run.path, "name": run.name, "prefix": run.name[:8], "latest": None}[name]
    loaded = hpc_tune.load_run(reference, runs_dir=runs_dir)
    assert (loaded.name, loaded.path) == (run.name, run.path)
    assert repr(loaded).startswith(f"<run {run.name}: 3 trials, best accuracy 0.4")


def test_the_tables_are_those_of_the_files(run: RunDir) -> None:
    loaded = hpc_tune.load_run(run.path)
    collect(run)
    for name in ("trials", "history", "summary"):
        frame, written = getattr(loaded, name), pandas.read_csv(run.path / f"{name}.csv")
        assert list(frame.columns) == list(written.columns)
        assert len(frame) == len(written)
    assert loaded.best.trial_id == loaded.summary["best_trial"].iloc[0] == "t_2"
    assert loaded.best.config == {"lr": 0.2}
    assert loaded.checkpoints == {f"t_{n}": run.storage / f"t_{n}" / "checkpoint_000003" for n in range(3)}


def test_the_figures_are_those_of_the_report(run: RunDir, tmp_path: Path) -> None:
    loaded = hpc_tune.load_run(run.path)
    written = loaded.report(tmp_path / "report.html")
    assert written.file == tmp_path / "report.html"
    assert tuple(loaded.figures) == written.plots
    assert loaded.figures["learning-curves"].to_dict()["data"]


def test_status_and_resume_return_what_the_commands_show(run: RunDir, runs_dir: Path) -> None:
    assert hpc_tune.status(runs_dir=runs_dir).run == run
    assert hpc_tune.status(run).state == status(run).state
    with pytest.raises(UsageError, match="takes no keys of an allocation"):
        hpc_tune.resume(run, here=True, nodes=2)
    MadeRun(run).attempt(outcome=ended("completed", "all trials have ended"))
    with pytest.raises(RunError, match="complete"):
        hpc_tune.resume(run, here=True)


def test_submit_takes_the_keys_of_an_allocation(project: Any, runs_dir: Path) -> None:
    with pytest.raises(ExperimentError) as caught:
        hpc_tune.submit(project.json(), runs_dir=runs_dir, nodes="many")
    assert [fault.key for fault in caught.value.faults] == ["allocation.nodes"]
    assert not runs_dir.exists()


def test_a_run_that_is_not_there(runs_dir: Path) -> None:
    with pytest.raises(RunNotFound):
        hpc_tune.load_run("none", runs_dir=runs_dir)
