"""What trials draw from, with a stand-in for PyTorch."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from hpc_tune.runtime.seeding import seed_trial

TORCH = """\
calls = []

def manual_seed(seed):
    calls.append(("seed", seed))

def set_num_threads(threads):
    calls.append(("threads", threads))
"""


@pytest.fixture
def torch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which torch can be put; nothing of it stays."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield tmp_path
    sys.modules.pop("torch", None)


def import_torch(folder: Path) -> ModuleType:
    (folder / "torch.py").write_text(TORCH)
    importlib.invalidate_caches()
    return importlib.import_module("torch")


def draws(seed: int, trial_id: str) -> float:
    seed_trial(seed, trial_id, 1)
    return random.random()


def test_a_trial_draws_by_its_place_in_the_search(torch_folder: Path) -> None:
    assert draws(1, "abc_00001") == draws(1, "xyz_00001")
    assert len({draws(1, "abc_00001"), draws(1, "abc_00002"), draws(2, "abc_00001")}) == 3


def test_torch_is_seeded_whenever_a_trial_imports_it(torch_folder: Path) -> None:
    seed_trial(1, "abc_00001", 2.5)
    seed_trial(1, "abc_00002", 2.5)  # the next trial of the same process is the first to need it
    late = import_torch(torch_folder)
    assert len(late.calls) == 2
    assert late.calls[1] == ("threads", 2)
    seed_trial(1, "abc_00002", 2.5)
    assert late.calls[2:] == late.calls[:2]
    seed_trial(1, "abc_00003", 0.5)
    assert late.calls[4] != late.calls[0]
    assert late.calls[5] == ("threads", 1)


def test_a_missing_torch_is_missing(torch_folder: Path) -> None:
    seed_trial(1, "abc_00001", 1)
    with pytest.raises(ModuleNotFoundError, match="No module named 'torch'"):
        importlib.import_module("torch")
