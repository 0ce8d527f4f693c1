"""Real Slurm clusters for tests, each started once and shared."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hpc_tune_slurm.sandbox import Sandbox, SandboxConfig, SandboxUnavailableError
from hpc_tune_slurm.sandbox.processes import as_user

from hpc_tune.site import Environment, Partition, Site
from tests.sandbox.login import Login, packages_for

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


@pytest.fixture(scope="session")
def homes() -> Iterator[Path]:
    """Where users of a sandbox live: seen by all nodes, each home its owner's alone."""
    path = Path(tempfile.mkdtemp(prefix="hpc-tune-homes-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def ray_sandbox(new_state_dir: Callable[[str], Path], homes: Path) -> Iterator[Sandbox]:
    """Four nodes, small ones, so that several Rays fit on the machine; three jobs can share each of them.

    It ends before the homes are removed, in which jobs may still write.
    """
    config = SandboxConfig(
        state_dir=new_state_dir("ray"), cpus=3, gpus=3, memory=6000, shm=1024, tmp=1024, requeue_delay=REQUEUE_DELAY
    )
    yield from running(config)


SITE = Site(
    name="own",
    cluster_names=["iris"],
    partition="gpu",
    cpus_per_gpu=1,
    next_attempt="none",
    partitions={"gpu": Partition(max_nodes=16, cpus_per_node=3, gpus_per_node=3, default_time=1200)},
)
"""Knows the sandbox's nodes as the profile of a real cluster knows its own."""


@pytest.fixture(scope="session")
def user(ray_sandbox: Sandbox, homes: Path) -> Login:
    """Root, who has the Python of these tests."""
    login = Login(ray_sandbox, homes / "root")
    login.use_site(SITE)
    return login


@pytest.fixture(scope="session")
def new_nobody(homes: Path) -> Callable[[Sandbox], Login]:
    """Make the other user known on a sandbox, with a Python and packages that they may read."""
    path = packages_for(homes / "packages")

    def make(sandbox: Sandbox) -> Login:
        environment = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        home = Path(tempfile.mkdtemp(prefix="nobody-", dir=homes)) / "home"
        home.parent.chmod(0o755)
        login = Login(sandbox, home, user="nobody", python=_readable_python(path), environment=environment)
        login.use_site(SITE.model_copy(update={"environment": Environment(python=str(login.python))}))
        return login

    return make


def _readable_python(path: str) -> Path:
    """Return an interpreter with which another user can import Ray: one in a home of mode 0700 is root's alone."""
    version = f"python3.{sys.version_info.minor}"
    candidates = [Path(sys.executable).resolve(), Path("/usr/bin") / version, Path("/usr/local/bin") / version]
    for python in filter(Path.exists, candidates):
        # env: what setpriv itself starts is still found with root's eyes
        argv = as_user("nobody", ["env", python, "-c", "import ray, hpc_tune_slurm"])
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([str(word) for word in argv], env=environment, cwd="/", capture_output=True, check=False)
        if done.returncode == 0:
            return python
    pytest.fail(f"user nobody can use none of {', '.join(map(str, candidates))}: apt-get install {version}")
