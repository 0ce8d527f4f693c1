"""Images that trials saved: PNG files in their folders, just below, and in the best checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

__all__ = ["Image", "find_images"]

MOST = 12
LARGEST = 400_000
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Image:
    """A PNG of a trial; ``name`` is its path in the trial's folder."""

    trial_id: str
    name: str
    data: bytes


def find_images(
    storage: Path, trial_ids: Iterable[str], best_checkpoint: Path | None = None
) -> tuple[list[Image], int]:
    """Return up to `MOST` images, none over `LARGEST` bytes, and how many were left out.

    Those of the best checkpoint come first, then those of the trials in the given order. A trial's folder is its
    working directory; its other checkpoints are not looked into.
    """
    found: list[Image] = []
    left_out = 0
    for trial_id, path in chain(_inside(best_checkpoint), _of_trials(storage, trial_ids)):
        image = _image(path, trial_id, storage) if len(found) < MOST else None
        if image is None:
            left_out += 1
        else:
            found.append(image)
    return found, left_out


def _inside(checkpoint: Path | None) -> Iterator[tuple[str, Path]]:
    if checkpoint is not None:
        yield from ((checkpoint.parent.name, path) for path in sorted(checkpoint.glob("*.png")))


def _of_trials(storage: Path, trial_ids: Iterable[str]) -> Iterator[tuple[str, Path]]:
    for trial_id in trial_ids:
        yield from ((trial_id, path) for path in sorted(_pngs(storage / trial_id)))


def _pngs(folder: Path) -> Iterable[Path]:
    yield from folder.glob("*.png")
    for path in folder.glob("*/*.png"):
        if not path.parent.name.startswith(("checkpoint_", "clone-")):
            yield path


def _image(path: Path, trial_id: str, storage: Path) -> Image | None:
    try:
        if path.stat().st_size > LARGEST:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    return Image(trial_id, str(path.relative_to(storage / trial_id)), data) if data.startswith(_SIGNATURE) else None
