"""Real Slurm clusters for tests, each started once and shared."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hpc_tune_slurm.sandbox import Sandbox, SandboxConfig, SandboxUnavailableError

STATE_ROOT = Path("/var/lib")
REQUEUE_DELAY = 15
"""Slurm's own 120 s would be most of the time that the tests take."""


@pytest.fixture(scope="session")
def new_state_dir() -> Callable[[str], Path]:
    """Name state directories of this test session alone, so that sessions can run side by side."""
    return lambda name: STATE_ROOT / f"hpc-tune-test-{name}-{os.getpid()}"


def running(config: SandboxConfig) -> Iterator[Sandbox]:
    """Yield a sandbox that is up, or skip where none can run."""
    try:
        with Sandbox(config) as sandbox:
            yield sandbox
    except SandboxUnavailableError as reason:
        if os.environ.get("CI"):
            raise  # in CI everything runs
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def slurm_sandbox(new_state_dir: Callable[[str], Path]) -> Iterator[Sandbox]:
    """Four nodes, no accounting, for all tests; a test ends its jobs and heals the nodes that it kills."""
    yield from running(SandboxConfig(state_dir=new_state_dir("main"), requeue_delay=REQUEUE_DELAY))


@pytest.fixture(scope="session")
def accounting_sandbox(new_state_dir: Callable[[str], Path]) -> Iterator[Sandbox]:
    """Two small nodes with accounting, beside the other sandbox."""
    config = SandboxConfig(state_dir=new_state_dir("acct"), nodes=2, cpus=3, gpus=0, accounting=True)
    yield from running(config)


@pytest.fixture
def cluster_dir() -> Iterator[Path]:
    """A directory that all nodes see and all users may write to; pytest's own lie below /tmp, which nodes hide."""
    path = Path(tempfile.mkdtemp(prefix="hpc-tune-test-", dir="/var/tmp"))
    path.chmod(0o1777)
    yield path
    shutil.rmtree(path)
