"""The daemons of a sandbox: how each is started, when it is ready, and what to say when it is not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .config import SandboxConfig
from .errors import SandboxError, SandboxTimeoutError
from .layout import Layout
from .packages import find_program
from .processes import StartedProcess, run, start
from .waiting import wait_until

__all__ = ["Daemons"]

LOG_TAIL_LINES = 15
READY_SECONDS = 30.0


@dataclass(frozen=True)
class Daemons:
    """Starts daemons, each as process 1 of its own PID, mount and host name namespace.

    Killing the `unshare` above it, which is the process on record, ends everything that it ever started.
    """

    layout: Layout
    config: SandboxConfig

    @property
    def controllers(self) -> tuple[str, ...]:
        """The daemons without which the sandbox is not up, in the order of their start."""
        accounting = ("mariadbd", "slurmdbd") if self.config.accounting else ()
        return ("munged", *accounting, "slurmctld")

    def started(self) -> dict[str, StartedProcess]:
        """Return the records of all daemons by name; a node's slurmd goes by the node's name."""
        return StartedProcess.load(self.layout.processes)

    def is_alive(self, name: str) -> bool:
        """Whether a daemon was started and still runs."""
        process = self.started().get(name)
        return process is not None and process.is_alive

    def start_munged(self) -> None:
        """Start the daemon that vouches for user ids, and wait until it answers."""
        munge = self.layout.munge
        options = {
            "socket": self.layout.munge_socket,
            "key-file": munge / "munge.key",
            "seed-file": munge / "munge.seed",
            "pid-file": munge / "munged.pid",
        }
        self._start_controller("munged", ["--foreground", *(f"--{key}={path}" for key, path in options.items())])
        self.wait_for("munged", lambda: _accepts(self.layout.munge_socket))

    def start_database(self) -> None:
        """Create a MariaDB of our own, reachable by its socket alone, and wait until it answers."""
        common = ["--no-defaults", f"--datadir={self.layout.database}"]
        new = ["--auth-root-authentication-method=socket", "--skip-test-db", "--skip-name-resolve", "--force"]
        run(["mariadb-install-db", *common, "--user=root", *new], timeout=120)
        quick = ["--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=16M", "--innodb-lock-wait-timeout=900"]
        self._start_controller(
            "mariadbd",
            [*common, "--user=root", "--skip-networking", f"--socket={self.layout.database_socket}", *quick],
        )
        self.wait_for("mariadbd", lambda: _accepts(self.layout.database_socket))

    def start_slurmdbd(self) -> None:
        """Start the accounting daemon and enter the cluster and its users."""
        self._start_controller("slurmdbd", ["-D"], {"MYSQL_UNIX_PORT": str(self.layout.database_socket)})
        self.wait_for("slurmdbd", lambda: self._sacctmgr("show", "cluster", check=False))
        self._sacctmgr("add", "cluster", self.config.cluster_name)
        self._sacctmgr("add", "account", "sandbox", "Description=sandbox", "Organization=sandbox")
        if self.config.users:
            self._sacctmgr("add", "user", ",".join(self.config.users), "Account=sandbox")

    def _sacctmgr(self, *words: str, check: bool = True) -> bool:
        argv = ["sacctmgr", "--immediate", "--quiet", *words]
        return run(argv, env={"SLURM_CONF": str(self.layout.slurm_conf)}, check=check).returncode == 0

    def start_slurmctld(self) -> None:
        """Start the controller; the nodes' registration shows when it is ready."""
        self._start_controller("slurmctld", ["-D", "-i"])

    def start_node(self, node: str) -> None:
        """Start a node's slurmd; the node's state shows when it is ready."""
        self._start(node, [node, "node", _program("slurmd"), "-D", "-N", node], self.layout.namespace(node), {})

    def end(self, name: str) -> None:
        """End a daemon and all that runs below it; nothing happens if it does not run."""
        process = self.started().get(name)
        if process is not None:
            process.end()
            (self.layout.processes / f"{name}.json").unlink(missing_ok=True)

    def end_all(self) -> None:
        """End everything that was started, the nodes first so that none of them misses its controller."""
        names = list(self.started())
        for name in sorted(names, key=lambda name: name in self.controllers):
            self.end(name)

    def wait_for(self, name: str, ready: Callable[[], bool], seconds: float = READY_SECONDS) -> None:
        """Wait until `ready`, but not for a dead daemon.

        Raises:
            SandboxError: The daemon died or the deadline passed; with the end of its log.
        """

        def ready_or_dead() -> bool:
            self.check_alive(name)
            return ready()

        try:
            wait_until(ready_or_dead, f"{name} is not ready", seconds)
        except SandboxTimeoutError as error:
            raise SandboxTimeoutError(f"{error.message}\n{self.log_tail(name)}", self._hint()) from None

    def check_alive(self, *names: str) -> None:
        """Raise with the end of its log for the first daemon that does not run."""
        for name in names:
            if not self.is_alive(name):
                raise SandboxError(f"{name} has stopped.\n{self.log_tail(name)}", self._hint())

    def log_tail(self, name: str) -> str:
        """Return the last lines of a daemon's log, with the path as heading."""
        path = self.layout.log(name)
        lines: Sequence[str] = ()
        with suppress(FileNotFoundError):
            lines = path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"The end of {path}:", *(f"  {line}" for line in lines or ["(empty)"])])

    def _hint(self) -> str:
        command = f"python -m hpc_tune_slurm.sandbox down --state-dir {self.layout.root}"
        return f"All logs: {self.layout.logs}\nClear up: {command}"

    def _start_controller(self, name: str, options: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        machine = self.config.controller_name
        command = [machine, "controller", _program(name), *options]
        self._start(name, command, self.layout.namespace(machine), env or {})

    def _start(self, name: str, command: Sequence[str], namespace: Path, env: Mapping[str, str]) -> None:
        machine = ["unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        argv: list[str | Path] = [
            "nsenter",
            f"--net={namespace}",
            *machine,
            "bash",
            self.layout.machine_script,
            *command,
        ]
        environment = {"SLURM_CONF": str(self.layout.slurm_conf), **env}
        start(name, argv, self.layout.log(name), environment).save(self.layout.processes)


def _program(name: str) -> str:
    """Return the daemon's path; that it exists was checked before the start began."""
    return find_program(name) or name


def _accepts(path: Path) -> bool:
    """Whether a daemon accepts connections on a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
