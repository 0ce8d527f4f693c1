"""The notebook's search of the Fashion-MNIST classifier, and bare training loops: a command for either.

The notebook is Ray_Tune_FashionMNIST.ipynb of github.com/RaphaelMaser/Ray_Tune, ported to Ray 2.60.

    python notebook.py notebook|bare EPOCHS
"""

from __future__ import annotations

import functools
import importlib.util
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import ray
import torch
from PIL import Image
from ray import tune
from ray.tune.search.basic_variant import BasicVariantGenerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, random_split

EXAMPLE = Path(__file__).resolve().parents[2] / "experiments" / "fashion_mnist"
SLOTS = 2
BATCH_SIZE = 256
SAMPLES = [  # drawn once from the search space of random.toml
    {"lr": 0.0637, "weight_decay": 0.0027},
    {"lr": 0.0041, "weight_decay": 0.0002},
    {"lr": 0.0165, "weight_decay": 0.0081},
    {"lr": 0.0813, "weight_decay": 0.0091},
]


@functools.cache
def example() -> ModuleType:
    """Import the example by its path, as hpc-tune does."""
    spec = importlib.util.spec_from_file_location("fashion_mnist_example", EXAMPLE / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------------------- the notebook, cell by cell


class FashionMNIST(Dataset):
    """Stands in for ``torchvision.datasets.FashionMNIST(transform=ToTensor())``, step by step.

    torchvision does not import beside every build of torch, so what it does with an image is written out.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.data, self.targets = torch.from_numpy(images), torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, target = self.data[index], int(self.targets[index])
        return to_tensor(Image.fromarray(image.numpy())), target


def to_tensor(picture: Image.Image) -> Tensor:
    """Do what ``torchvision.transforms.ToTensor`` does with an 8-bit grey picture."""
    image = torch.from_numpy(np.array(picture, np.uint8, copy=True))
    image = image.view(picture.size[1], picture.size[0], 1).permute((2, 0, 1)).contiguous()
    return image.to(dtype=torch.get_default_dtype()).div(255)


class NeuralNetwork(nn.Module):
    """The notebook's classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(28 * 28, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.linear_relu_stack(self.flatten(x))


def train_epoch(dataloader: DataLoader, model: nn.Module, optimizer: torch.optim.SGD, device: str) -> None:
    """Go once through the training images."""
    model.train()
    for images, labels in dataloader:
        x, y = images.to(device), labels.to(device)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def accuracy_in_percent(dataloader: DataLoader, model: nn.Module, device: str) -> float:
    """Score the model on the validation images."""
    model.eval()
    loss, correct = 0.0, 0.0
    with torch.no_grad():
        for images, labels in dataloader:
            x, y = images.to(device), labels.to(device)
            prediction = model(x)
            loss += nn.functional.cross_entropy(prediction, y).item()
            correct += (prediction.argmax(1) == y).type(torch.float).sum().item()
    return 100 * correct / len(dataloader.dataset)


def notebook(epochs: int) -> float:
    """Run plain Ray Tune: the trainable captures the dataset and decodes each image whenever it needs it."""
    arrays = example().load_data()
    images, labels = (np.concatenate([arrays[key], arrays[f"val_{key}"]]) for key in "xy")
    train_data, val_data = random_split(FashionMNIST(images, labels), [0.8, 0.2])
    train_loader = DataLoader(train_data, batch_size=BATCH_SIZE, shuffle=True)
    val_loader = DataLoader(val_data, batch_size=BATCH_SIZE)

    def train_tune(config: dict[str, Any]) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = NeuralNetwork().to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], weight_decay=config["weight_decay"])
        for epoch in range(config["epochs"]):
            train_epoch(train_loader, model, optimizer, device)
            accuracy = accuracy_in_percent(val_loader, model, device)
            tune.report({"mean_accuracy": accuracy, "epoch": epoch + 1})

    space = {"lr": tune.uniform(1e-5, 1e-1), "weight_decay": tune.uniform(1e-6, 1e-2), "epochs": epochs}
    search = BasicVariantGenerator(points_to_evaluate=SAMPLES)
    with (
        tempfile.TemporaryDirectory(prefix="fm-", ignore_cleanup_errors=True) as folder,
        ray.init(num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, _temp_dir=f"{folder}/ray"),
    ):
        results = tune.Tuner(
            tune.with_resources(train_tune, {"cpu": 1}),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="mean_accuracy", mode="max", num_samples=len(SAMPLES), search_alg=search
            ),
            run_config=tune.RunConfig(storage_path=f"{folder}/results"),
        ).fit()
    if results.errors:
        raise results.errors[0]
    return max(result.metrics["mean_accuracy"] for result in results)


# ------------------------------------------------------------------------------------- without Ray


@functools.cache
def tensors() -> tuple[Tensor, ...]:
    """Load the data once in this process."""
    data = example().load_data()
    return *example().to_tensors(data["x"], data["y"], "cpu"), *example().to_tensors(
        data["val_x"], data["val_y"], "cpu"
    )


def train_bare(sample: dict[str, float], epochs: int) -> float:
    """Train the example's model by the example's functions: no reports, no checkpoints."""
    torch.set_num_threads(1)
    x, y, val_x, val_y = tensors()
    model = example().build_model()
    optimizer = torch.optim.SGD(model.parameters(), **sample)
    for _ in range(epochs):
        example().train_epoch(model, optimizer, x, y, BATCH_SIZE)
        metrics = example().evaluate(model, val_x, val_y)
    return metrics["mean_accuracy"]


def bare(epochs: int) -> float:
    """Train the samples in a pool of processes: what no tuner can beat by much."""
    with ProcessPoolExecutor(SLOTS, mp_context=multiprocessing.get_context("spawn")) as pool:
        return max(pool.map(functools.partial(train_bare, epochs=epochs), SAMPLES))


if __name__ == "__main__":
    contender = {"notebook": notebook, "bare": bare}[sys.argv[1]]
    print(contender(int(sys.argv[2])))
