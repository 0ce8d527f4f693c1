"""What Ray's processes find in their environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from hpc_tune.attempt import Attempt
from hpc_tune.process import MARK
from hpc_tune.runtime.checkpointing import STOP_FILE

__all__ = ["attempt_environment", "limit_threads"]

_PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")


def limit_threads(environment: MutableMapping[str, str], cpus: float) -> None:
    """Have numerical libraries use a trial's CPUs, unless the user has decided otherwise."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        environment.setdefault(name, str(max(1, int(cpus))))


def attempt_environment(base: Mapping[str, str], attempt: Attempt, code: Path, stop_file: Path) -> dict[str, str]:
    """Return what the driver, Ray and each trial find in their environment.

    Nothing is left to chance or to the user's home: Ray would pick up a token file, a cluster address or a proxy of
    its own accord.
    """
    environment = dict(base)
    for name in _PROXIES:  # gRPC would send Ray's traffic through them
        environment.pop(name, None)
        environment.pop(name.upper(), None)
    environment.pop("RAY_ADDRESS", None)
    environment.pop("RAY_AUTH_TOKEN", None)
    environment.update(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(attempt.token_file),
        RAY_USAGE_STATS_ENABLED="0",
        # a node that falls silent is given up after half a minute; by default it takes Ray more than one
        RAY_health_check_period_ms="2000",
        RAY_health_check_timeout_ms="5000",
        RAY_health_check_failure_threshold="4",
        RAY_prestart_worker_first_driver="0",  # else a process per CPU, all importing Ray at once, before any trial
        RAY_CHDIR_TO_TRIAL_DIR="0",  # a trial works in its folder on the storage path; see trainable.py
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",  # results_log.py takes their place
        TUNE_FUNCTION_THREAD_TIMEOUT_S="60",  # a stopped trial may need more than Tune's 2 s to let go of its worker
        PYTHONPATH=os.pathsep.join(filter(None, [str(code), environment.get("PYTHONPATH")])),
    )
    environment[MARK] = str(attempt.path)
    environment[STOP_FILE] = str(stop_file)
    return environment
