"""A user of a throw-away Slurm, who sends jobs and waits for them."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from pathlib import Path

from hpc_tune_slurm.sandbox import Sandbox

PATIENCE = 600.0  # seconds that a job may take


class User:
    """Has a home of their own; counts how often they have asked after a job."""

    def __init__(self, sandbox: Sandbox, folder: Path, site: str = 'partition = "gpu"\n') -> None:
        home = folder / "home"
        sites = home / ".config/hpc-tune/sites"
        sites.mkdir(parents=True)
        (sites / "bench.toml").write_text(f'cluster_names = ["bench"]\n{site}')
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        self._environment = {**kept, "HOME": str(home), "LANG": "C.UTF-8", **sandbox.env()}
        self.asked = 0

    def run(self, argv: list[str], folder: Path) -> str:
        """Run a command; return what it said."""
        done = subprocess.run(argv, cwd=folder, env=self._environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(argv)}: {done.stdout}{done.stderr}")
        return done.stdout

    def wait_for_end(self, job: str) -> None:
        """Ask slurmctld once a second."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.ask(job) in ("COMPLETED", "CANCELLED", "FAILED"):
                return
            time.sleep(1)
        self.run(["scancel", job], Path("/"))
        raise RuntimeError(f"job {job} has not ended after {PATIENCE:.0f} s")

    def ask(self, job: str) -> str:
        """Return a job's state."""
        self.asked += 1
        return self.run(["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T"], Path("/")).strip()
