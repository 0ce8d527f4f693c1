"""What people wait for, in numbers that do not depend on how busy the machine is: modules imported, files read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.operations.tables import collect
from hpc_tune.run import RunDir
from tests.unit.made_results import MadeTrials, curve
from tests.unit.made_runs import MadeRun, age, ended, searching

OPENED: list[list[Path]] = []
"""One list for each block that watches; hooks stay for as long as Python runs."""


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and OPENED and isinstance(arguments[0], str):
        OPENED[-1].append(Path(arguments[0]))


@pytest.fixture(scope="module", autouse=True)
def _hook() -> None:
    sys.addaudithook(_hear)


@contextmanager
def files_read(below: Path) -> Iterator[list[Path]]:
    """Collect the files of a directory that are opened in the block."""
    OPENED.append([])
    found: list[Path] = []
    try:
        yield found
    finally:
        found += [path.relative_to(below) for path in OPENED.pop() if path.is_relative_to(below)]


@pytest.fixture
def made(project: Any, runs_dir: Path) -> RunDir:
    run: RunDir = project.create_run(runs_dir, num_samples=30, space={"lr": {"uniform": [0, 1]}})
    trials = MadeTrials(run)
    for number in range(30):
        trials.add(f"t_{number:02d}", curve(0.03 * number, 20), status="TERMINATED" if number < 28 else "RUNNING")
    for path in run.storage.rglob("*"):
        age(path, 60)  # of files of this instant nobody can tell whether they are being written
    return run


def test_collecting_again_reads_what_is_new_alone(made: RunDir) -> None:
    with files_read(made.storage) as first:
        collect(made)
    assert len({path for path in first if path.name == "result.json"}) == 30
    with files_read(made.storage) as nothing_new:
        collect(made)
    assert nothing_new == []
    MadeTrials(made).report(made.storage / "t_29", [0.99], start=1_795_479_000, node="iris-169", first=21)
    with files_read(made.storage) as one_new:
        collect(made)
    assert {path.parts[0] for path in one_new} == {"t_29"}


def test_status_and_list_look_into_no_trial(made: RunDir) -> None:
    from hpc_tune.operations.listing import list_all
    from hpc_tune.operations.status import status

    MadeRun(made).attempt(progress=searching(total=30, TERMINATED=30), outcome=ended("completed", "all have ended"))
    with files_read(made.path) as read:
        assert status(made).trials == {"TERMINATED": 30}
        assert [each.finished for each in list_all(made.path.parent).runs] == [30]
    assert not any(path.is_relative_to("storage") for path in read)
    assert len(read) <= 16  # two looks at run.json and the few records of an attempt


@pytest.mark.parametrize("command", [["--help"], ["list"], ["status"]])
def test_a_quick_command_imports_nothing_heavy(made: RunDir, command: list[str]) -> None:
    MadeRun(made).attempt(progress=searching(total=30, TERMINATED=30), outcome=ended("completed", "all have ended"))
    where = [] if command == ["--help"] else ["--runs-dir", str(made.path.parent)]
    code = (
        "import sys; from click.testing import CliRunner; from hpc_tune.cli import cli;"
        f"result = CliRunner().invoke(cli, {[*command, *where]!r}); assert result.exit_code == 0, result.output;"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"ray", "torch", "pandas", "numpy", "pydantic", "plotly", "jinja2", "rich", "submitit", "optuna"}
    assert heavy.isdisjoint(loaded), heavy & set(loaded)
    ours = [name for name in loaded if name.partition(".")[0] == "hpc_tune"]
    assert len(ours) <= (15 if command == ["--help"] else 55), ours
