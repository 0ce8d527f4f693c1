"""What Ray's processes find in their environment."""

from __future__ import annotations

import os
import secrets
from collections.abc import MutableMapping
from pathlib import Path

__all__ = ["limit_threads", "prepare_environment", "write_token"]

_PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")


def write_token(path: Path) -> None:
    """Draw the secret of one attempt. Without it nobody can talk to the attempt's Ray."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


def limit_threads(environment: MutableMapping[str, str], cpus: float) -> None:
    """Have numerical libraries use a trial's CPUs, unless the user has decided otherwise."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        environment.setdefault(name, str(max(1, int(cpus))))


def prepare_environment(environment: MutableMapping[str, str], *, token: Path, code: Path) -> None:
    """Set what must hold in the driver, in Ray and in each trial, before any of them imports Ray.

    Nothing is left to chance or to the user's home: Ray would pick up a token file, a cluster address or a proxy of
    its own accord.
    """
    for name in _PROXIES:  # gRPC would send Ray's traffic through them
        environment.pop(name, None)
        environment.pop(name.upper(), None)
    environment.pop("RAY_ADDRESS", None)
    environment.pop("RAY_AUTH_TOKEN", None)
    environment.update(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(token),
        RAY_USAGE_STATS_ENABLED="0",
        RAY_CHDIR_TO_TRIAL_DIR="0",  # a trial works in its folder on the storage path; see trainable.py
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",  # results_log.py takes their place
        TUNE_FUNCTION_THREAD_TIMEOUT_S="60",  # a stopped trial may need more than Tune's 2 s to let go of its worker
        RAY_ENABLE_ZERO_COPY_TORCH_TENSORS="1",
        PYTHONPATH=os.pathsep.join(filter(None, [str(code), environment.get("PYTHONPATH")])),
    )
