"""A sandbox, the scenarios side by side on it, and the table at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from hpc_tune_slurm.sandbox import Sandbox, SandboxConfig, SandboxUnavailableError

from hpc_tune.site import Partition, Site
from tests.fault.field import Field, Row, seed_of_session
from tests.fault.scenarios import Scenario
from tests.sandbox.login import Login

LANES = 3
"""Scenarios at the same time: most of each one's time is waiting."""
NODES_OF_LANE = 3
SEED = seed_of_session()
ROWS: list[Row] = []
HEADINGS = [
    "fault", "search", "attempts", "trials lost", "finished trials trained again",
    "iterations repeated per running trial", "results different",
]  # fmt: skip
SITE = Site(
    name="own",
    cluster_names=["iris"],
    partition="gpu",
    partitions={"gpu": Partition(max_nodes=16, cpus_per_node=2, default_time=1200)},
)


def pytest_report_header() -> str:
    return f"faults come at random instants: HPC_TUNE_FAULT_SEED={SEED}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of the faults."""
    if not ROWS:
        return
    terminalreporter.section(f"faults, HPC_TUNE_FAULT_SEED={SEED}")
    for cells in (HEADINGS, ["---"] * len(HEADINGS), *(row.cells() for row in sorted(ROWS, key=lambda row: row.fault))):
        terminalreporter.write_line(f"| {' | '.join(cells)} |")


@pytest.fixture(scope="module")
def field() -> Iterator[Field]:
    """Nodes, small ones, and a disk that can be filled, mounted before the nodes are there to see it."""
    folder = Path(tempfile.mkdtemp(prefix="hpc-tune-fault-", dir="/var/tmp"))
    small = folder / "small"
    small.mkdir()
    config = SandboxConfig(
        state_dir=Path(f"/var/lib/hpc-tune-fault-{os.getpid()}"),
        nodes=LANES * NODES_OF_LANE, cpus=2, gpus=0, memory=6000, shm=1024, tmp=1024, requeue_delay=15,
    )  # fmt: skip
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(small)], check=True)
        try:
            with Sandbox(config) as sandbox:
                yield _field(sandbox, folder, small)
        except SandboxUnavailableError as reason:
            if os.environ.get("CI"):
                raise  # in CI everything runs
            pytest.skip(str(reason))
        finally:
            subprocess.run(["umount", "--lazy", str(small)], check=True)
    finally:
        shutil.rmtree(folder)


def _field(sandbox: Sandbox, folder: Path, small: Path) -> Field:
    login = Login(sandbox, folder / "home")
    login.use_site(SITE)
    made = Field(sandbox, login, small, SEED, ROWS)
    names = sandbox.config.node_names
    for lane in range(LANES):
        made.lanes.put(names[lane * NODES_OF_LANE : (lane + 1) * NODES_OF_LANE])
    return made


@pytest.fixture(scope="module")
def played(field: Field, request: pytest.FixtureRequest) -> Iterator[Callable[[Scenario], None]]:
    """Play all scenarios that were chosen, side by side; wait for the end of one."""
    chosen = [item.callspec.params.get("scenario") for item in request.session.items if hasattr(item, "callspec")]
    with ThreadPoolExecutor(LANES) as pool:
        ends: dict[str, Future[None]] = {
            each.fault: pool.submit(each.play, field) for each in chosen if isinstance(each, Scenario)
        }
        yield lambda scenario: ends[scenario.fault].result()
        field.closed.set()
        pool.shutdown(cancel_futures=True)
