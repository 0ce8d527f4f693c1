"""Locks in a run directory.

They are made of files and renames, since flock does not exclude processes on other clients of a shared file system.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import StrictSoftFileLock, Timeout

from hpc_tune.process import is_alive

__all__ = ["Lock"]

_NAMESPACE_MARK = "?pidns-"
_FIRST_NAMESPACE = 0xEFFFFFFC  # the kernel's, of processes in no container: PID_NS_INIT_INO


@dataclass(frozen=True)
class Lock:
    """A lock that names the process which holds it, and lets go of one that has died on this machine."""

    path: Path

    def holder(self) -> str | None:
        """Name the process that holds it, or return None when there is none."""
        claims = [claim for claim in self._file().claims if not _is_stale(claim)]
        return f"process {claims[0].pid} on {_machine(claims[0])}" if claims else None

    def holder_here(self) -> int | None:
        """Return the process of this machine that holds it, or None when there is none here."""
        pids = [claim.pid for claim in self._file().claims if claim.hostname == _here() and not _is_stale(claim)]
        return pids[0] if pids else None

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold it for as long as the block lasts; yield whether that worked, since there is no waiting."""
        lock = self._file()
        for claim in filter(_is_stale, lock.claims):
            lock.force_break(claim.name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def hosts(self) -> set[str]:
        """Return the machines whose processes hold it, or died while they did."""
        return {_machine(claim) for claim in self._file().claims}

    def break_claims(self, hosts: Collection[str]) -> None:
        """Remove the claims of processes on other machines that are known to be gone."""
        lock = self._file()
        for claim in lock.claims:
            if _machine(claim) in hosts:
                lock.force_break(claim.name)

    def _file(self) -> StrictSoftFileLock:
        return StrictSoftFileLock(str(self.path), mode=0o600)


def _is_stale(claim: Any) -> bool:
    """Tell whether a claim's process is known to be gone; on another machine nobody here can know."""
    return claim.hostname == _here() and not is_alive(claim.pid)


def _here() -> str:
    """Return what filelock calls this machine: in a container, where processes have other numbers, with a mark."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - what the link stands for, not where it leads
    except OSError:
        namespace = _FIRST_NAMESPACE
    return socket.gethostname() + ("" if namespace == _FIRST_NAMESPACE else f"{_NAMESPACE_MARK}{namespace:x}")


def _machine(claim: Any) -> str:
    """Return the name of a claim's machine."""
    return str(claim.hostname).partition(_NAMESPACE_MARK)[0]
