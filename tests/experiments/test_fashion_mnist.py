"""The Fashion-MNIST example: its data, its model and its checkpoints, without a Ray cluster."""

from __future__ import annotations

import gzip
import shutil
import socket
import sys
import threading
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from filelock import FileLock, Timeout

from hpc_tune.experiment.spec import Experiment
from tests.experiments.conftest import EXPERIMENTS, load_module
from tests.ray.conftest import Search
from tests.sandbox.login import read_table

torch = pytest.importorskip("torch")
EXAMPLE = EXPERIMENTS / "fashion_mnist"
FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
CONFIG = {"epochs": 1, "batch_size": 256, "lr": 0.2, "weight_decay": 1e-4}


example = load_module(EXAMPLE / "train.py")
needs_data = pytest.mark.skipif(
    not example.DEBIAN.is_dir(), reason="apt-get install dataset-fashion-mnist, for the real images"
)


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    """The real data, read-only as it is when it comes out of Ray's object store."""
    arrays = example.load_data()
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


@pytest.fixture
def small(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array[:1024] for name, array in data.items()}


class Session:
    """Stands in for the Tune session of one trial; keeps a copy of each checkpoint, as Tune does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reports: list[dict[str, float]] = []
        self.restore_from: Any = None

    def report(self, metrics: dict[str, float], *, checkpoint: Any) -> None:
        self.reports.append(metrics)
        shutil.copytree(checkpoint.path, self.folder / str(len(self.reports)))

    def get_checkpoint(self) -> Any:
        return self.restore_from

    def checkpoint(self, number: int) -> Any:
        return example.tune.Checkpoint.from_directory(str(self.folder / str(number)))

    def state(self, number: int) -> dict[str, Any]:
        return torch.load(self.folder / str(number) / "state.pt", weights_only=True)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    session = Session(tmp_path)
    monkeypatch.setattr(example.tune, "report", session.report)
    monkeypatch.setattr(example.tune, "get_checkpoint", session.get_checkpoint)
    torch.manual_seed(0)
    return session


# ------------------------------------------------------------------------------------------------- the data


@needs_data
def test_data_is_the_training_set_split_in_two(data: dict[str, np.ndarray]) -> None:
    assert {name: array.shape for name, array in data.items()} == {
        "x": (48_000, 28, 28),
        "y": (48_000,),
        "val_x": (12_000, 28, 28),
        "val_y": (12_000,),
    }
    assert {array.dtype for array in data.values()} == {np.dtype(np.uint8)}


@needs_data
def test_the_two_parts_together_are_the_whole(data: dict[str, np.ndarray]) -> None:
    whole = {image.tobytes() for image in example.read_idx(example.DEBIAN / FILES[0])}
    train, val = ({image.tobytes() for image in data[name]} for name in ("x", "val_x"))
    assert len(whole) == 60_000, "no two images are equal, so sets of them tell each from each"
    assert train | val == whole
    assert not train & val
    counts = np.bincount(data["y"]) + np.bincount(data["val_y"])
    assert counts.tolist() == [6_000] * 10


@needs_data
def test_images_keep_their_labels(data: dict[str, np.ndarray]) -> None:
    images, labels = (example.read_idx(example.DEBIAN / name) for name in FILES)
    label_of = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    assert all(label_of[i.tobytes()] == n for i, n in zip(data["val_x"], data["val_y"], strict=True))


@needs_data
def test_the_split_is_always_the_same(data: dict[str, np.ndarray]) -> None:
    np.random.seed(1)  # the global state that a split by it would follow
    torch.manual_seed(1)
    again = example.load_data()
    assert all(np.array_equal(again[name], data[name]) for name in data)


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + values.tobytes()))


def test_read_idx_reads_what_the_format_says(tmp_path: Path) -> None:
    values = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / "values.gz", values)
    assert np.array_equal(example.read_idx(tmp_path / "values.gz"), values)


# --------------------------------------------------------------------------------------------- the download


class Torchvision:
    """A torchvision whose download does as it is told, and counts."""

    def __init__(self, on_download: Callable[[Path], None]) -> None:
        self.on_download = on_download
        self.calls = 0

    def __call__(self, root: str, *, download: bool) -> None:
        assert download
        self.calls += 1
        raw = Path(root, "FashionMNIST", "raw")
        raw.mkdir(parents=True)
        self.on_download(raw)


def ten_images(raw: Path) -> None:
    write_idx(raw / FILES[0], np.zeros((10, 28, 28), np.uint8))
    write_idx(raw / FILES[1], np.arange(10, dtype=np.uint8))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without the Debian package, and an empty cache that does not exist yet."""
    monkeypatch.setattr(example, "DEBIAN", tmp_path / "no-such-package")
    monkeypatch.setattr(example, "CACHE", tmp_path / "home" / "fashion-mnist")
    return example.CACHE


def install(monkeypatch: pytest.MonkeyPatch, on_download: Callable[[Path], None]) -> Torchvision:
    torchvision = Torchvision(on_download)
    datasets = ModuleType("torchvision.datasets")
    datasets.FashionMNIST = torchvision  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)
    return torchvision


@needs_data
def test_torchvision_is_not_imported_when_the_files_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)  # its import would raise
    assert len(example.load_data()["y"]) == 48_000


def test_data_is_downloaded_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = install(monkeypatch, ten_images)
    assert sorted(example.load_data()["y"]) == sorted(example.load_data()["y"]) == list(range(10))
    assert torchvision.calls == 1
    assert sorted(path.name for path in cache.parent.iterdir()) == ["fashion-mnist", "fashion-mnist.lock"]


@pytest.mark.usefixtures("cache")
def test_two_at_once_download_once(monkeypatch: pytest.MonkeyPatch) -> None:
    both_started = threading.Barrier(2)

    def load(_: int) -> dict[str, np.ndarray]:
        both_started.wait(10)
        return example.load_data()

    def slow(raw: Path) -> None:
        threading.Event().wait(0.3)  # long enough for the other one to arrive
        ten_images(raw)

    torchvision = install(monkeypatch, slow)
    with ThreadPoolExecutor(2) as pool:
        assert [len(data["y"]) for data in pool.map(load, range(2))] == [10, 10]
    assert torchvision.calls == 1


def test_the_download_happens_under_the_lock(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def while_downloading(raw: Path) -> None:
        with pytest.raises(Timeout):
            FileLock(f"{cache}.lock").acquire(timeout=0)
        ten_images(raw)

    install(monkeypatch, while_downloading)
    example.load_data()


def test_without_internet_the_error_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(raw: Path) -> None:
        (raw / FILES[0]).write_bytes(b"half a fi")
        raise RuntimeError("Error downloading train-images: Temporary failure in name resolution")

    install(monkeypatch, unreachable)
    with pytest.raises(RuntimeError) as caught:
        example.load_data()
    for part in ("dataset-fashion-mnist", str(cache), "name resolution", f"python {EXAMPLE / 'train.py'}"):
        assert part in str(caught.value)
    assert [path.name for path in cache.parent.iterdir()] == ["fashion-mnist.lock"], "half a file stayed"
    assert socket.getdefaulttimeout() is None


@pytest.mark.usefixtures("cache")
def test_without_torchvision_the_error_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(RuntimeError, match=r"dataset-fashion-mnist.*\n.*a node that has it"):
        example.load_data()


# ---------------------------------------------------------------------------------- the model and its trials


def test_the_layers_are_the_notebooks() -> None:
    layers = [layer for layer in example.build_model() if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [
        (784, 256),
        (256, 128),
        (128, 10),
    ]
    assert example.build_model()(torch.zeros(5, 28, 28)).shape == (5, 10)


@pytest.mark.filterwarnings("error")  # PyTorch warns when a tensor would share memory that is read-only
def test_images_become_floats_between_0_and_1() -> None:
    images = np.array([[[0, 51], [102, 255]]], np.uint8)
    images.flags.writeable = False
    x, y = example.to_tensors(images, np.array([9], np.uint8), "cpu")
    assert torch.equal(x, torch.tensor([[[0, 51], [102, 255]]]) / 255)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert images.max() == 255


def test_evaluate_counts_in_percent() -> None:
    logits = torch.eye(4)
    metrics = example.evaluate(torch.nn.Identity(), logits, torch.tensor([0, 1, 2, 0]))
    assert metrics["mean_accuracy"] == 75.0
    assert metrics["loss"] > 0


@needs_data
def test_one_epoch_learns(data: dict[str, np.ndarray], session: Session) -> None:
    example.train(CONFIG, data)
    [metrics] = session.reports
    assert metrics["mean_accuracy"] > 70


@needs_data
def test_each_epoch_reports_and_checkpoints(small: dict[str, np.ndarray], session: Session) -> None:
    example.train(CONFIG | {"epochs": 3}, small)
    assert [session.state(number)["epoch"] for number in (1, 2, 3)] == [1, 2, 3]
    assert set(session.state(3)) == {"model", "optimizer", "epoch"}
    assert len(session.reports) == 3


@needs_data
def test_a_trial_goes_on_from_its_checkpoint(
    small: dict[str, np.ndarray], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    example.train(CONFIG | {"epochs": 2}, small)
    starts: list[Any] = []
    monkeypatch.setattr(example, "train_epoch", lambda model, *_: starts.append(model.state_dict()))
    session.restore_from = session.checkpoint(2)
    example.train(CONFIG | {"epochs": 5}, small)
    assert [session.state(number)["epoch"] for number in (3, 4, 5)] == [3, 4, 5]
    saved = session.state(2)["model"]
    assert all(torch.equal(saved[name], starts[0][name]) for name in saved)


@needs_data
def test_a_restored_trial_obeys_its_config(small: dict[str, np.ndarray], session: Session) -> None:
    example.train(CONFIG, small)
    session.restore_from = session.checkpoint(1)
    example.train(CONFIG | {"epochs": 2, "lr": 0.007, "weight_decay": 0.002}, small)
    [group] = session.state(2)["optimizer"]["param_groups"]
    assert (group["lr"], group["weight_decay"]) == (0.007, 0.002)


@needs_data
def test_a_finished_trial_has_nothing_left_to_do(small: dict[str, np.ndarray], session: Session) -> None:
    example.train(CONFIG, small)
    session.restore_from = session.checkpoint(1)
    example.train(CONFIG, small)
    assert len(session.reports) == 1


# ---------------------------------------------------------------------------------------- experiment files


@pytest.mark.parametrize(("name", "samples"), [("random", 4), ("asha", 8), ("pbt", 4)])
def test_the_experiment_files_are_one_search_in_three_ways(name: str, samples: int) -> None:
    experiment = tomllib.loads((EXAMPLE / f"{name}.toml").read_text())
    Experiment.model_validate(experiment)
    assert experiment["name"] == f"fashion-mnist-{name}"
    assert experiment["num_samples"] == samples
    assert (experiment["metric"], experiment["mode"]) == ("mean_accuracy", "max")
    for key in ("trainable", "data"):
        file, function = experiment[key].split(":")
        assert (EXAMPLE / file).is_file()
        assert callable(getattr(example, function))
    assert experiment["space"] == {
        "epochs": 10,
        "batch_size": 256,
        "lr": {"uniform": [1e-5, 1e-1]},
        "weight_decay": {"uniform": [1e-6, 1e-2]},
    }


@needs_data
@pytest.mark.experiment
def test_each_file_runs_from_a_copy_of_the_folder(copied: Callable[[str], Search]) -> None:
    search = copied("fashion_mnist")
    settings = ("num_samples=2", "space.epochs=1", "seed=4")  # of two samples one has a learning rate that learns
    files = ("random.toml", "asha.toml", "pbt.toml")
    search.call("run", *files, *(word for each in settings for word in ("--set", each)))
    tables = [read_table(run, "trials") for run in sorted(search.runs_dir.iterdir())]
    assert [[row["status"] for row in rows] for rows in tables] == [["TERMINATED"] * 2] * 3
    assert min(max(float(row["mean_accuracy"]) for row in rows) for rows in tables) > 50
