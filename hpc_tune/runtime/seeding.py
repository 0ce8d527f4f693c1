"""What a trial draws from, seeded by the trial's place in the search, so that a search can be repeated."""

from __future__ import annotations

import importlib.util
import random
import sys
import zlib
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["seed_trial"]


def seed_trial(search_seed: int, trial_id: str, cpus: float) -> None:
    """Seed the generators of Python, NumPy and PyTorch, the last also if the trial imports it later.

    Nobody but the trial imports PyTorch: it takes as long as all of Ray Tune.
    """
    seed = zlib.crc32(f"{search_seed}:{trial_id.rpartition('_')[2]}".encode())
    random.seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed)
    _OnImport.seed, _OnImport.threads = seed, max(1, int(cpus))
    if (torch := sys.modules.get("torch")) is not None:
        _OnImport.prepare(torch)
    elif _OnImport not in sys.meta_path:
        sys.meta_path.insert(0, _OnImport)


class _OnImport:
    """A finder that has PyTorch prepared at the end of its import."""

    seed = 0
    threads = 1

    @classmethod
    def prepare(cls, torch: Any) -> None:
        torch.manual_seed(cls.seed)
        torch.set_num_threads(cls.threads)

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(cls)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def and_prepare(module: ModuleType) -> None:
                execute(module)
                cls.prepare(module)

            spec.loader.exec_module = and_prepare  # type: ignore[method-assign]
        return spec
