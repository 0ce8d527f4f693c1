"""Train a small classifier of Fashion-MNIST under Ray Tune: the example to copy.

``load_data`` is called once per search and ``train`` once per trial; neither needs to know of hpc_tune.
``python train.py`` only fetches the data, for clusters whose compute nodes have no internet.
"""

from __future__ import annotations

import gzip
import os
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from ray import tune
from torch import Tensor, nn

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fashion-mnist"
SPLIT_SEED = 0  # fixed, so that every trial of every run is judged on the same images
TRAINING_IMAGES = 48_000  # of 60,000; the others validate


def load_data() -> dict[str, NDArray[np.uint8]]:
    """Return the training set, split in two: 28 x 28 images and labels 0-9, all uint8."""
    folder = DEBIAN if DEBIAN.is_dir() else download(CACHE)
    images = read_idx(folder / "train-images-idx3-ubyte.gz")
    labels = read_idx(folder / "train-labels-idx1-ubyte.gz")
    train, val = np.split(np.random.default_rng(SPLIT_SEED).permutation(len(images)), [TRAINING_IMAGES])
    return {"x": images[train], "y": labels[train], "val_x": images[val], "val_y": labels[val]}


def download(folder: Path) -> Path:
    """Fetch the dataset into ``folder``, once, however many processes ask for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return folder
        patience = socket.getdefaulttimeout()
        socket.setdefaulttimeout(10)  # else a firewall that drops packets holds us for minutes
        try:
            from torchvision.datasets import FashionMNIST  # only here: many a node does without it

            with TemporaryDirectory(dir=folder.parent) as scratch:  # renamed when whole
                FashionMNIST(scratch, download=True)
                return Path(scratch, "FashionMNIST", "raw").rename(folder)
        except (ImportError, OSError, RuntimeError) as error:
            raise RuntimeError(
                f"no Fashion-MNIST in {DEBIAN} (Debian package dataset-fashion-mnist) or {folder}, and its "
                f"download failed: {error}\nWithout internet here, on a node that has it: python {__file__}"
            ) from error
        finally:
            socket.setdefaulttimeout(patience)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an idx file: four bytes, the last the number of dimensions; these as int32; the values."""
    content = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + shape.nbytes).reshape(shape)


def build_model() -> nn.Sequential:
    """Return the untrained network, 784-256-128-10."""
    hidden = [nn.Linear(28 * 28, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, 10))


def to_tensors(images: NDArray[np.uint8], labels: NDArray[np.uint8], device: str) -> tuple[Tensor, Tensor]:
    """Copy both to ``device``, the images as floats in [0, 1]; Ray's shared arrays stay as they are."""
    x = torch.tensor(images, dtype=torch.float32, device=device).div_(255)
    return x, torch.tensor(labels, dtype=torch.int64, device=device)


def train_epoch(model: nn.Module, optimizer: torch.optim.SGD, x: Tensor, y: Tensor, batch_size: int) -> None:
    """Go once through the training images, in a new order."""
    model.train()
    for batch in torch.randperm(len(x), device=x.device).split(batch_size):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()


@torch.inference_mode()
def evaluate(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return accuracy in percent and loss."""
    model.eval()
    logits = model(x)
    correct = (logits.argmax(1) == y).sum().item()
    return {"mean_accuracy": 100 * correct / len(y), "loss": nn.functional.cross_entropy(logits, y).item()}


def train(config: dict[str, Any], data: dict[str, NDArray[np.uint8]]) -> None:
    """Train one trial, from its checkpoint if it has one, and report after each epoch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, y = to_tensors(data["x"], data["y"], device)
    val_x, val_y = to_tensors(data["val_x"], data["val_y"], device)
    model = build_model().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], weight_decay=config["weight_decay"])
    start = 0
    if checkpoint := tune.get_checkpoint():
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder, "state.pt"), map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        for group in optimizer.param_groups:  # the state brought the old values; PBT may have chosen new ones
            group.update(lr=config["lr"], weight_decay=config["weight_decay"])
        start = state["epoch"]
    for epoch in range(start, config["epochs"]):
        train_epoch(model, optimizer, x, y, config["batch_size"])
        metrics = evaluate(model, val_x, val_y)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
        with TemporaryDirectory() as folder:
            torch.save(state, Path(folder, "state.pt"))
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


if __name__ == "__main__":
    print({name: array.shape for name, array in load_data().items()})
