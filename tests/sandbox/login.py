"""A user on the sandbox's login node, with a home, a site profile and projects of their own."""

from __future__ import annotations

import csv
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_tune_slurm.sandbox import Sandbox
from hpc_tune_slurm.sandbox.errors import SandboxTimeoutError
from hpc_tune_slurm.sandbox.processes import as_user
from hpc_tune_slurm.sandbox.waiting import wait_until

from hpc_tune.run import RunDir
from hpc_tune.site import Site, as_toml

REPOSITORY = Path(__file__).parents[2]
SITE_PACKAGES = next(Path(entry) for entry in sys.path if entry.endswith("site-packages"))
COMMAND_SECONDS = 120
"""A command takes a second; on two busy cores a dozen."""
ATTEMPT_SECONDS = 240
"""An attempt of these tests takes ten to forty seconds; several at once on busy cores take longer."""
LIVE = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"}


@dataclass
class Login:
    """Who submits: root with the Python of these tests, or another user with one that they may read."""

    sandbox: Sandbox
    home: Path
    """Shared by all nodes."""
    user: str | None = None
    python: Path = field(default_factory=lambda: Path(sys.executable))
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(mode=0o700)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
            **self.sandbox.env(),
            **self.environment,
        }
        self.own(self.home)

    def own(self, path: Path) -> None:
        """Give a path and what is below it to the user."""
        if self.user is not None:
            account = pwd.getpwnam(self.user)
            for each in (path, *path.rglob("*")):
                os.chown(each, account.pw_uid, account.pw_gid)

    def use_site(self, site: Site) -> None:
        """Write the profile that this user's commands find for the sandbox."""
        folder = self.home / ".config/hpc-tune/sites"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{site.name}.toml").write_text(as_toml(site))
        self.own(self.home / ".config")

    def project(self, trainable: str, experiment: Mapping[str, Any], *, name: str = "project") -> Path:
        """Make a folder from which ``hpc-tune submit`` needs no further word."""
        folder = self.home / name
        folder.mkdir()
        base = {"name": name, "trainable": "train.py:train", "metric": "score", "mode": "max"}
        (folder / "train.py").write_text(trainable)
        (folder / "search.json").write_text(json.dumps(base | dict(experiment)))
        (folder / "pyproject.toml").write_text('[tool.hpc-tune]\nexperiment = "search.json"\n')
        self.own(folder)
        return folder

    def call(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the login node as this user."""
        return subprocess.run(
            [str(word) for word in as_user(self.user, argv)],
            cwd=cwd or self.home,
            env={**self.environment, **(env or {})},
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def hpc_tune(
        self, *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, exit_code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run ``hpc-tune`` and check how it ends."""
        done = self.call([self.python, "-m", "hpc_tune", *arguments], cwd=cwd, env=env)
        assert done.returncode == exit_code, f"{arguments}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def submit(self, project: Path, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Submitted:
        """Submit the project's search."""
        said = json.loads(self.hpc_tune("submit", "--json", *arguments, cwd=project, env=env).stdout)
        return Submitted(self, RunDir(Path(said["path"])), said["job_id"])

    def forget_jobs(self) -> None:
        """End what is left of this user's jobs, so that the next test has free nodes."""
        self.call(["scancel", f"--user={self.user or 'root'}"])
        self.sandbox.wait_idle(90)


@dataclass
class Submitted:
    """A run that was sent to Slurm."""

    login: Login
    run: RunDir
    job_id: str

    def job_state(self, job_id: str | None = None) -> str:
        """Return what Slurm says of the job."""
        asked = f"--jobs={job_id or self.job_id}"
        return self.login.call(["squeue", "--noheader", "--states=all", asked, "--format=%T"]).stdout.strip()

    def status(self) -> dict[str, Any]:
        """Return what ``hpc-tune status --json`` says."""
        said: dict[str, Any] = json.loads(self.login.hpc_tune("status", self.run.path, "--json").stdout)
        return said

    def wait(self, seconds: float = ATTEMPT_SECONDS) -> dict[str, Any]:
        """Wait until the job has ended; return the status."""
        self.until(lambda: self.job_state() not in LIVE, f"the end of job {self.job_id}", seconds)
        return self.status()

    def until(self, condition: Callable[[], Any], what: str, seconds: float = ATTEMPT_SECONDS) -> None:
        """Wait for a condition; when it does not come, fail with what the job has said."""
        try:
            wait_until(condition, what, seconds, 0.2)
        except SandboxTimeoutError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def wait_for(self, path: Path, seconds: float = ATTEMPT_SECONDS) -> None:
        """Wait until something of the run exists; a job that ends before is a failure."""

        def there() -> bool:
            over = self.job_state() not in LIVE
            assert path.exists() or not over, f"the job ended without {path.name}\n{self.logs()}"
            return path.exists()

        self.until(there, path.name, seconds)

    def logs(self) -> str:
        """Return all that the job has said, for a failed test's message."""
        paths = [self.run.job_log(self.job_id), *sorted(self.run.path.glob("attempts/*/nodes/*.log"))]
        paths += sorted(self.run.path.glob("attempts/*/driver.log"))
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-6000:]}" for path in paths if path.exists())


def packages_for(folder: Path) -> str:
    """Return a PYTHONPATH on which a Python finds what is installed for these tests alone."""
    folder.mkdir(exist_ok=True)
    for name, source in (("hpc_tune", "hpc_tune"), ("hpc_tune_slurm", "slurm")):
        (folder / name).symlink_to(REPOSITORY / source)
    return f"{folder}:{SITE_PACKAGES}"


def read_table(run: Path, name: str) -> list[dict[str, str]]:
    """Return the rows of one of a run's tables."""
    with (run / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def leftovers(sandbox: Sandbox, node: str) -> list[str]:
    """Return what an attempt could leave on a node: processes, sockets that listen, and temporary files."""
    found = sandbox.exec(node, ["ps", "-eo", "args="]).stdout.splitlines()
    slurm = str(sandbox.config.state_dir)
    processes = [line for line in found if slurm not in line and ("hpc_tune" in line or "ray" in line.lower())]
    sockets = sandbox.exec(node, ["ss", "--listening", "--tcp", "--numeric", "--no-header"]).stdout.splitlines()
    strangers = [line for line in sockets if not line.split()[3].endswith(":6818")]  # where slurmd listens
    files = sandbox.exec(node, ["find", "/tmp", "/dev/shm", "-mindepth", "1"]).stdout.splitlines()
    return [*processes, *strangers, *files]
