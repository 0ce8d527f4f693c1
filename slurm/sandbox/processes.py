"""The one place that runs, remembers and ends processes."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import SandboxError
from .waiting import wait_until

__all__ = ["StartedProcess", "as_user", "call", "children", "run", "start"]

END_SECONDS = 15.0
"""A killed process that is still there after this time hangs in the kernel."""


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float | None = 60.0,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return its output.

    Args:
        argv: The command; nothing passes through a shell.
        env: Added to this process's environment.
        stdin: What the command reads; without it, nothing.
        timeout: Seconds after which it is killed.
        check: Whether an exit code other than 0 is an error.

    Raises:
        SandboxError: The command failed (with `check`), took longer than `timeout`, or does not exist.
    """
    words = [str(word) for word in argv]
    shown = " ".join(words[:12]) + (" …" if len(words) > 12 else "")
    environment = {**os.environ, **(env or {})}
    try:
        done = subprocess.run(
            words, env=environment, input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=timeout, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise SandboxError(f"`{shown}` took longer than {timeout:g} s.") from None
    except OSError as error:
        raise SandboxError(f"`{shown}` cannot be run: {error.strerror}.") from error
    if check and done.returncode != 0:
        output = (done.stderr or done.stdout).strip()
        raise SandboxError(f"`{shown}` ended with exit code {done.returncode}: {output}")
    return done


def call(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> int:
    """Run a command that owns this terminal, and return its exit code."""
    return subprocess.call([str(word) for word in argv], env={**os.environ, **(env or {})})


def as_user(user: str | None, argv: Sequence[str | Path]) -> list[str | Path]:
    """Prefix a command such that root runs it as another user of this machine."""
    if user is None:
        return list(argv)
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise SandboxError(f"There is no user {user!r} on this machine.") from None
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups", "--", *argv]


@dataclass(frozen=True)
class StartedProcess:
    """A process that we started; start time and boot tell it from a later one with the same number."""

    name: str
    pid: int
    start_time: int
    boot_id: str

    @property
    def is_alive(self) -> bool:
        """Whether exactly this process still runs."""
        return self.boot_id == _boot_id() and _start_time(self.pid) == self.start_time

    def save(self, folder: Path) -> None:
        """Write the record that `load` reads, so that a later command can end the process."""
        beside = folder / f"{self.name}.new"
        beside.write_text(json.dumps(asdict(self)))
        beside.replace(folder / f"{self.name}.json")

    @classmethod
    def load(cls, folder: Path) -> dict[str, StartedProcess]:
        """Return the records of a folder by name."""
        return {path.stem: cls(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))}

    def end(self) -> None:
        """Kill the process, which must be an `unshare --kill-child`, and wait until its namespace is empty.

        Raises:
            SandboxError: Something in it does not die, for it hangs in the kernel.
        """
        if not self.is_alive:
            return
        inner = [(pid, _start_time(pid)) for pid in children(self.pid)]
        os.kill(self.pid, signal.SIGKILL)
        wait_until(
            lambda: not self.is_alive and all(_start_time(pid) != began for pid, began in inner),
            f"the end of {self.name} (process {self.pid})",
            END_SECONDS,
            interval=0.01,
        )


def start(name: str, argv: Sequence[str | Path], log: Path, env: Mapping[str, str]) -> StartedProcess:
    """Start a daemon with its own session and its output in `log`, and return its record."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            [str(word) for word in argv], env={**os.environ, **env}, cwd="/", start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    began = _start_time(child.pid)
    # The record outlives this process; Popen's own bookkeeping would only warn that the child still runs.
    child.returncode = 0
    return StartedProcess(name, child.pid, -1 if began is None else began, _boot_id())


def children(pid: int) -> list[int]:
    """Return the processes whose parent is `pid`."""
    return [child for child, stat in _all_stats() if stat[1] == str(pid)]


def _all_stats() -> Iterator[tuple[int, list[str]]]:
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (stat := _stat(int(path.name))):
            yield int(path.name), stat


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on; the name before them may hold any character."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _start_time(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot; a zombie counts as gone, ours is reaped."""
    stat = _stat(pid)
    if stat is not None and stat[0] == "Z":
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return None
    return None if stat is None else int(stat[19])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
