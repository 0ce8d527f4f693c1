"""What a submission and an attempt cost slurmctld, which serves all users of a cluster, and how many processes run."""

from __future__ import annotations

import csv
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hpc_tune_slurm.sandbox import Sandbox, SandboxConfig
from hpc_tune_slurm.sandbox.waiting import wait_until

from tests.sandbox.conftest import running
from tests.sandbox.login import ATTEMPT_SECONDS, Login

pytestmark = pytest.mark.slurm

COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "sacct", "sinfo", "scancel", "sdiag", "sacctmgr", "sstat")
SIZES = (1, 4, 16)
ONE_TRIAL = """\
import os
from pathlib import Path
from ray import tune

def programs():
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            yield os.path.basename(os.readlink(entry / "exe"))
        except OSError:
            pass  # it has ended, or is somebody else's

def train(config):
    ours = [name for name in programs() if name.startswith(("python", "raylet", "gcs_server"))]
    tune.report({"score": 1, "processes": len(ours)})
"""
MOST_PROCESSES = 9
"""Of Python and Ray on the head, while one trial runs there."""


@pytest.fixture(scope="module")
def wide_sandbox(new_state_dir: Callable[[str], Path], homes: Path) -> Iterator[Sandbox]:
    """Sixteen nodes of one CPU."""
    config = SandboxConfig(state_dir=new_state_dir("wide"), nodes=16, cpus=1, gpus=0, memory=2000, shm=256, tmp=512)
    yield from running(config)


@dataclass(frozen=True)
class Cost:
    """What was asked of slurmctld."""

    commands: Counter[str]
    """Slurm's commands that were run, on the login node and in the job."""
    requests: int
    """Requests of the user that slurmctld has counted."""


class Counted:
    """Commands of Slurm that leave a line each time, first on a user's path."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self.log = login.home / "commands"
        programs = login.home / "bin"
        programs.mkdir()
        for name in filter(shutil.which, COMMANDS):
            program = programs / name
            program.write_text(f'#!/bin/bash\necho {name} >>{self.log}\nexec {shutil.which(name)} "$@"\n')
            program.chmod(0o755)
        self.log.touch()
        login.own(login.home)
        self.path = f"{programs}:{login.environment['PATH']}"

    def cost(self) -> Cost:
        """Return what was asked since the last time."""
        commands = Counter(self.log.read_text().split())
        self.log.write_text("")
        diagnosis = self.login.sandbox.run(["sdiag"]).stdout
        counted = re.search(r"^\s*nobody\s.*count:(\d+)", diagnosis, flags=re.MULTILINE)
        self.login.sandbox.run(["sdiag", "--reset"])
        return Cost(commands, int(counted[1]) if counted else 0)


def test_the_cost_does_not_depend_on_the_number_of_nodes(
    wide_sandbox: Sandbox, new_nobody: Callable[[Sandbox], Login]
) -> None:
    login = new_nobody(wide_sandbox)
    counted = Counted(login)
    project = login.project(ONE_TRIAL, {"space": {}, "trial": {"cpus": 1}}, name="counted")
    submissions, attempts = {}, {}

    def partition(state: str) -> None:
        wide_sandbox.run(["scontrol", "update", "PartitionName=gpu", f"State={state}"])

    for nodes in SIZES:
        partition("DOWN")  # the job waits until the submission has been counted
        counted.cost()
        submitted = login.submit(project, f"--nodes={nodes}", "--cpus-per-node=1", env={"PATH": counted.path})
        submissions[nodes] = counted.cost()
        partition("UP")
        query = ["squeue", "--noheader", f"--jobs={submitted.job_id}", "--states=all", "--format=%T"]
        ended = lambda query=query: wide_sandbox.run(query).stdout.strip() in {"COMPLETED", "FAILED"}  # noqa: E731
        wait_until(ended, f"the end of the job on {nodes} nodes", ATTEMPT_SECONDS, 0.2)
        attempts[nodes] = counted.cost()
        status = submitted.status()
        assert (status["state"], len(status["nodes"])) == ("completed", nodes), submitted.logs()
        with (submitted.run.path / "trials.csv").open(newline="") as file:
            (trial,) = csv.DictReader(file)
        assert 5 <= float(trial["processes"]) <= MOST_PROCESSES
    assert submissions[1].commands == submissions[4].commands == submissions[16].commands
    assert submissions[1].commands["sbatch"] == 1
    assert submissions[1].requests == submissions[4].requests == submissions[16].requests > 0
    assert attempts[1].commands == attempts[4].commands == attempts[16].commands == Counter(srun=1)
    assert attempts[1].requests == attempts[4].requests == attempts[16].requests > 0
