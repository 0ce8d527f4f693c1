"""Images that trials saved: PNG files in their folders or, as the trainable's working directory, just below."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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


def find_images(storage: Path, trial_ids: Iterable[str]) -> tuple[list[Image], int]:
    """Return up to `MOST` images of trials in the given order, none over `LARGEST` bytes, and how many were left out.

    Checkpoints are not looked into.
    """
    found: list[Image] = []
    left_out = 0
    for trial_id in trial_ids:
        for path in sorted(_pngs(storage / trial_id)):
            image = _image(path, trial_id, storage) if len(found) < MOST else None
            if image is None:
                left_out += 1
            else:
                found.append(image)
    return found, left_out


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
