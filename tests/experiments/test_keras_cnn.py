"""The Keras CNN on handwritten digits: each experiment file by ``run``, three in a command."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.experiments.conftest import EXPERIMENTS
from tests.ray.conftest import Search

FILES = sorted(path.name for path in (EXPERIMENTS / "keras_cnn").iterdir() if path.suffix in (".toml", ".json"))
SMALL = ("num_samples=2", "space.momentum=0.4", "space.lr=0.1", "space.epochs=2", "space.images=512", "trial.cpus=1")


@pytest.mark.ray
@pytest.mark.parametrize("files", [FILES[:3], FILES[3:]], ids=" ".join)
def test_each_file_runs(copied: Callable[[str], Search], files: list[str]) -> None:
    search = copied("keras_cnn")
    assert len(files) == 3
    shown = search.call("run", *files, "--json", "--cpus", "2", *(word for each in SMALL for word in ("--set", each)))
    for name, each in zip(files, json.loads(shown)["runs"], strict=True):
        assert each["ending"] == "completed", (name, each)
        assert each["summary"]["terminated"] == 2, (name, each)
        assert each["best"]["best_value"] > 0.15, (name, each)  # guessing gets 0.1
