"""What a machine has that a search needs; a compute node is asked by the same command as this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import resource
import shutil
import socket
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from hpc_tune import __version__

__all__ = ["MachineFacts", "read_facts"]

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")


@dataclass(frozen=True)
class MachineFacts:
    """What was found. Sizes are bytes; None where there is no such thing."""

    host: str
    hpc_tune: str
    python: str
    executable: str
    ray: str | None
    torch: str | None
    torch_cuda: str | None
    """The version of CUDA that torch is built for; None also where it is built for none."""
    gpus: str | None
    """CUDA_VISIBLE_DEVICES."""
    shared_memory: int | None
    open_files: int
    """The hard limit; -1 for none."""
    processes: int
    """The soft limit of processes and threads; -1 for none."""
    temp_dir: str
    temp_free: int | None
    proxies: tuple[str, ...]
    ray_token: str | None
    """A token file in the home, which Ray would use of its own accord."""
    probe: str | None = None
    """What was in the file that was left in the runs' directory."""

    @classmethod
    def from_json(cls, text: str) -> MachineFacts:
        """Return what another machine printed; other output may stand before it.

        Raises:
            ValueError: if it printed nothing like it.
        """
        lines = [line for line in text.splitlines() if line.startswith('{"host"')]
        if not lines:
            raise ValueError(text.strip()[-300:] or "no output")
        record = json.loads(lines[-1])
        return cls(**{**record, "proxies": tuple(record["proxies"])})


def read_facts(temp_dir: str, probe: Path | None = None) -> MachineFacts:
    """Look at this machine."""
    token = Path("~/.ray/auth_token").expanduser()
    return MachineFacts(
        host=socket.gethostname(),
        hpc_tune=__version__,
        python=platform.python_version(),
        executable=sys.executable,
        ray=_version("ray"),
        torch=_version("torch"),
        torch_cuda=_torch_cuda(),
        gpus=os.environ.get("CUDA_VISIBLE_DEVICES"),
        shared_memory=_size("/dev/shm"),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        processes=resource.getrlimit(resource.RLIMIT_NPROC)[0],
        temp_dir=temp_dir,
        temp_free=_free(temp_dir),
        proxies=tuple(name for name in PROXIES if os.environ.get(name) or os.environ.get(name.upper())),
        ray_token=str(token) if token.exists() else None,
        probe=_read(probe),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _torch_cuda() -> str | None:
    """Read it from torch's own file: importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        text = _read(Path(folder, "version.py")) or ""
        if found := re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)", text, re.MULTILINE):
            return found[1]
    return None


def _read(path: Path | None) -> str | None:
    try:
        return path.read_text() if path else None
    except OSError:
        return None


def _size(path: str) -> int | None:
    try:
        return shutil.disk_usage(path).total
    except OSError:
        return None


def _free(path: str) -> int | None:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None
