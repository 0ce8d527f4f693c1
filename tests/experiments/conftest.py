"""Experiments as users take them: copied elsewhere, run by the command."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.ray.conftest import Search

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def load_module(path: Path) -> ModuleType:
    """Import a file of an experiment, which is in no package."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[Callable[[str], Search]]:
    """Copy an experiment's folder to a place from where nothing of this repository is seen."""
    made: list[Search] = []

    def copy(name: str) -> Search:
        search = Search(tmp_path / "elsewhere" / name)
        shutil.copytree(EXPERIMENTS / name, search.folder, ignore=shutil.ignore_patterns("__pycache__"))
        made.append(search)
        return search

    yield copy
    for search in made:
        search.end()
