"""The state directory: the one class that knows where everything lies, and who may change it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .config import SandboxConfig
from .errors import SandboxError

__all__ = ["Layout"]


class Layout:
    """Paths of one sandbox.

    ```text
    /var/lib/hpc-tune-sandbox/
      sandbox.json     the settings; written first, removed last: marks the directory as ours
      network.json     which subnet it got
      ready            `up` came to its end
      slurm.conf gres.conf cgroup.conf slurmdbd.conf hosts resolv.conf machine.sh
      processes/       one file for each process that we started
      net/             one bind-mounted network namespace for each machine
      gpu/             character devices that stand in for GPUs
      munge/ ctld/ mysql/ spool/NODE/    the daemons' own
      log/             one file for each daemon
    ```
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = root / "sandbox.json"
        self.network = root / "network.json"
        self.ready = root / "ready"
        self.slurm_conf = root / "slurm.conf"
        self.hosts = root / "hosts"
        self.resolv_conf = root / "resolv.conf"
        self.machine_script = root / "machine.sh"
        self.processes = root / "processes"
        self.namespaces = root / "net"
        self.gpus = root / "gpu"
        self.munge = root / "munge"
        self.munge_socket = self.munge / "munge.socket.2"
        self.controller_state = root / "ctld"
        self.database = root / "mysql"
        self.database_socket = root / "mysql.sock"
        self.spool = root / "spool"
        self.tmp_mount = root / "tmp"
        self.logs = root / "log"

    def namespace(self, machine: str) -> Path:
        """The file over which a machine's network namespace is bound."""
        return self.namespaces / machine

    def log(self, daemon: str) -> Path:
        """The log of a daemon; that of a node's slurmd goes by the node's name."""
        return self.logs / f"{daemon}.log"

    def exists(self) -> bool:
        """Whether a sandbox, running or not, lives here."""
        return self.settings.exists()

    def read_config(self) -> SandboxConfig:
        """Return the settings with which the sandbox was started.

        Raises:
            SandboxError: There is none.
        """
        try:
            return SandboxConfig.from_json(self.settings.read_text())
        except FileNotFoundError:
            hint = f"Start one: python -m hpc_tune_slurm.sandbox up --state-dir {self.root}"
            raise SandboxError(f"There is no sandbox in {self.root}.", hint) from None

    def create(self, config: SandboxConfig) -> None:
        """Make the directories and write the settings; the caller holds the lock."""
        self.settings.write_text(config.to_json())
        for folder in (self.processes, self.namespaces, self.gpus, self.munge, self.tmp_mount, self.logs):
            folder.mkdir(mode=0o755)
        for private in (self.controller_state, self.database):
            private.mkdir(mode=0o700)
        for node in config.node_names:
            (self.spool / node).mkdir(parents=True, mode=0o755)

    def clear(self) -> None:
        """Remove everything below the state directory, the mark that it is ours last."""
        for path in self.root.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != self.settings:
                path.unlink()
        self.settings.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands off this sandbox, and refuse directories that are somebody else's.

        The lock is on the directory itself, so that no lock file outlives the sandbox.

        Raises:
            SandboxError: The directory holds other things, or another command is at work in it.
        """
        previous_mask = os.umask(0o022)
        handle = self._lock_root()
        try:
            self._check_ours()
            yield
        finally:
            os.close(handle)
            os.umask(previous_mask)

    def _lock_root(self) -> int:
        while True:
            self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
            handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(handle), self.root.stat()):
                    return handle
            except FileNotFoundError:
                pass  # `down` removed the directory after we had opened it
            except BlockingIOError:
                message = f"Another command is at work on the sandbox in {self.root}."
                raise SandboxError(message, "Try again when it is done.") from None
            os.close(handle)

    def _check_ours(self) -> None:
        if not self.exists() and any(self.root.iterdir()):
            raise SandboxError(f"{self.root} has files in it that are no sandbox's.", "Choose another --state-dir.")
