"""A folder with an experiment in it, and imports that are undone after each test."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.errors import ExperimentError
from hpc_tune.experiment.load import LoadedExperiment, load_experiment
from hpc_tune.run import RunDir

TRAIN = """\
def train(config):
    ...


def load_data():
    return 1
"""


class Project:
    """A user's folder: ``train.py`` with ``train`` and ``load_data``, and experiment files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.write("train.py", TRAIN)

    def write(self, name: str, text: str) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def spec(self, *without: str, **changes: Any) -> dict[str, Any]:
        """Return a whole experiment as the file would hold it, changed."""
        spec = {"name": "search", "trainable": "train.py:train", "metric": "accuracy", "mode": "max"}
        return {key: value for key, value in {**spec, **changes}.items() if key not in without}

    def json(self, *without: str, **changes: Any) -> Path:
        return self.write("search.json", json.dumps(self.spec(*without, **changes)))

    def load(self, *overrides: str, **changes: Any) -> LoadedExperiment:
        return load_experiment(self.json(**changes), overrides)

    def faults(self, *without: str, overrides: tuple[str, ...] = (), **changes: Any) -> dict[str, str]:
        """Return the faults of an experiment by key, each as its user reads it."""
        return faults_of(self.json(*without, **changes), *overrides)

    def create_run(self, runs_dir: Path, **changes: Any) -> RunDir:
        return RunDir.create(runs_dir, self.load(**changes), overrides=[], seed=7, command=["hpc-tune", "run"])


def faults_of(path: Path, *overrides: str) -> dict[str, str]:
    with pytest.raises(ExperimentError) as caught:
        load_experiment(path, overrides)
    assert str(path) in str(caught.value)
    keys = [fault.key for fault in caught.value.faults]
    assert len(set(keys)) == len(keys), f"one key is blamed twice: {caught.value}"
    return {fault.key: str(fault) for fault in caught.value.faults}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture(autouse=True)
def _forget_imports(tmp_path: Path) -> Iterator[None]:
    """Forget the modules of a test's own folder: each test writes another ``train.py``."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
