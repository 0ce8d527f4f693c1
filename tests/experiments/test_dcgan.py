"""A DCGAN for digits under PBT: its networks, its judge, and its smoke variant with the report."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.experiments.conftest import EXPERIMENTS, load_module
from tests.ray.conftest import Search

torch = pytest.importorskip("torch")
pytest.importorskip("mlxtend")
example = load_module(EXPERIMENTS / "dcgan" / "train.py")


def test_the_networks_are_those_of_the_guide() -> None:
    generator, discriminator = example.build_generator(), example.build_discriminator()
    convolutions = [layer for layer in generator if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in convolutions] == [128, 64, 32, 1]
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in discriminator) == 4
    images = example.draw(generator, 3)
    assert images.shape == (3, 1, 32, 32)
    with torch.inference_mode():
        assert discriminator(images).shape == (3,)
    assert float(convolutions[0].weight.detach().std()) == pytest.approx(0.02, rel=0.05)


def test_the_score_is_one_for_one_digit_and_ten_for_all() -> None:
    certain = torch.eye(10) * 100
    assert example.inception_score(certain, torch.nn.Identity()) == pytest.approx(10)
    assert example.inception_score(certain[:1].repeat(10, 1), torch.nn.Identity()) == pytest.approx(1)


def test_the_judge_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "CACHE", tmp_path / "cache")
    digits, labels = torch.zeros(64, 1, 32, 32, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64)
    first = example.trained_classifier(digits, labels)
    monkeypatch.delattr(example, "train_classifier")  # who trains again fails
    again = example.trained_classifier(digits, labels)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert sorted(path.name for path in example.CACHE.iterdir()) == ["classifier.pt", "classifier.pt.lock"]


def test_the_smoke_variant_differs_in_size_alone() -> None:
    full, smoke = (tomllib.loads((EXPERIMENTS / "dcgan" / f"{name}.toml").read_text()) for name in ("pbt", "smoke"))
    assert {key for key in full if full[key] != smoke[key]} == {"name", "num_samples", "stop", "allocation"}
    assert (full["num_samples"], full["stop"], full["trial_scheduler"]["perturbation_interval"]) == (
        8, {"training_iteration": 150}, 5,
    )  # fmt: skip


@pytest.mark.experiment
def test_the_smoke_variant_runs_and_its_report_shows_digits(copied: Callable[[str], Search], tmp_path: Path) -> None:
    search = copied("dcgan")
    search.environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    search.call("run", "smoke.toml")
    assert [(row["status"], row["iterations"]) for row in search.table()] == [("TERMINATED", "5")] * 2
    assert (tmp_path / "cache" / "dcgan" / "classifier.pt").exists()
    command = [sys.executable, "-m", "hpc_tune", "report", str(search.directory)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
    page = (search.directory / "report.html").read_text()
    assert {"learning-curves", "metric-lossG", "metric-lossD"} <= set(re.findall('data-of="([^"]+)"', page))
    assert "checkpoint_000000/digits.png" in page
