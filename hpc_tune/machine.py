"""What this machine offers to a local run."""

from __future__ import annotations

import os
from pathlib import Path

from hpc_tune.experiment.capacity import Node

__all__ = ["this_machine"]


def this_machine(*, cpus: float | None = None, gpus: float | None = None) -> Node:
    """Return the CPUs that this process may use and the GPUs that it can see, unless told otherwise."""
    return Node(
        cpus=len(os.sched_getaffinity(0)) if cpus is None else cpus,
        gpus=_visible_gpus() if gpus is None else gpus,
    )


def _visible_gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1", "NoDevFiles")])
    devices = Path("/proc/driver/nvidia/gpus")  # the driver's own list; asking nvidia-smi takes a second
    return len(list(devices.iterdir())) if devices.is_dir() else 0
