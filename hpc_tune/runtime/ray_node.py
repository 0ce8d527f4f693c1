"""Ray's processes on one node of an attempt, as a child process of ours.

``ray start --block`` is Ray's own way in. ``ray stop`` is not the way out: it ends every Ray of the user on the
node. The processes bear the attempt's mark and are ended by it.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpc_tune.runtime.granted import Resources
from hpc_tune.runtime.network import Ports

__all__ = ["RayNode", "RayNodeSpec", "copy_ray_logs", "raise_file_limit", "start_arguments"]

OPEN_FILES = 65535
"""What Ray's processes may need; the usual soft limit of 1,024 is not enough for a node full of workers."""
STARTED = b"Ray runtime started."
"""What ``ray start`` prints once the node is part of the cluster."""
_PROCESS_ENDED = re.compile(r"----- END (\w+)\.\w+ tail \(exit code\(s\)=(.*)\) -----")
"""What ``ray start`` prints when one of its processes has ended, after the last lines of that one's log."""
_TAIL = 40
_LAST_WORDS = 1.0
"""Seconds to wait for what an ended process has said."""


@dataclass(frozen=True)
class RayNodeSpec:
    """What Ray is told on one node."""

    address: str
    """This node's IP address."""
    ports: Ports
    resources: Resources
    temp_dir: Path
    head: str | None = None
    """``IP:port`` of the cluster to join; None: be its head."""


def start_arguments(spec: RayNodeSpec) -> list[str]:
    """Return the arguments of ``ray start``. Everything is said: what is left out Ray takes from the machine."""
    ports, resources = spec.ports, spec.resources
    arguments = [
        "start", "--block", "--disable-usage-stats",
        f"--node-ip-address={spec.address}",
        f"--temp-dir={spec.temp_dir}",
        f"--num-cpus={resources.cpus}",
        f"--num-gpus={resources.gpus}",
        f"--dashboard-agent-listen-port={ports.dashboard_agent}",
        f"--runtime-env-agent-port={ports.runtime_env_agent}",
        f"--metrics-export-port={ports.metrics}",
        *("--min-worker-port=0", "--max-worker-port=0"),  # the kernel's choice: no two jobs of a node collide
        "--include-log-monitor=false",  # trials write to their own files; the driver asks for nothing else
    ]  # fmt: skip
    if resources.object_store is not None:
        arguments.append(f"--object-store-memory={resources.object_store}")
    if resources.memory is not None:
        arguments.append(f"--memory={resources.memory}")
    if spec.head is not None:
        return [*arguments, f"--address={spec.head}"]
    dashboard = [f"--dashboard-port={ports.dashboard}", "--dashboard-host=127.0.0.1", "--include-dashboard=false"]
    return [*arguments, "--head", f"--port={ports.gcs}", *dashboard, "--no-monitor"]  # nothing to scale: Slurm does


def raise_file_limit() -> None:
    """Allow as many open files as Ray needs, or as many as the administrator permits."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class RayNode:
    """A ``ray start`` in the making or running, with what it says copied to a log as it comes."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._last: deque[bytes] = deque(maxlen=_TAIL)
        self.up = threading.Event()
        """Set once the node is part of the cluster."""
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "hpc_tune.runtime.ray_start"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._copy, daemon=True)
        self._reader.start()

    def start(self, spec: RayNodeSpec) -> None:
        """Start Ray's processes."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as arguments:  # a process that has ended says why
            arguments.write(json.dumps(start_arguments(spec)).encode() + b"\n")

    def _copy(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output, self._log.open("ab") as log:
            for line in output:
                self._last.append(line)
                log.write(line)
                log.flush()
                if STARTED in line:
                    self.up.set()

    @property
    def session(self) -> int:
        """The session that all of this node's Ray lives in."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code of ``ray start``, or None while it runs."""
        return self._process.poll()

    def failure(self) -> str:
        """Return in one line what went wrong: the last error that Ray names, else its last words."""
        if self.exit_code is not None:
            self._reader.join(timeout=_LAST_WORDS)  # they may still be in the pipe; a child may keep it open
        said = b"".join(self._last).decode(errors="replace")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        named = [line for line in lines if _names_an_error(line)]
        ended = [f"{end[1]} ended with exit code {end[2]}" for line in lines if (end := _PROCESS_ENDED.search(line))]
        return (named or ended or lines or [f"exit code {self.exit_code}"])[-1][:300]


def _names_an_error(line: str) -> bool:
    head = line.split(":", 1)[0].rpartition(".")[2]
    return head.endswith(("Error", "Exception", "error")) and " " not in head


def copy_ray_logs(temp_dir: Path, target: Path, *, most: int = 20_000) -> None:
    """Keep the ends of Ray's own logs of a node that failed; its temporary directory is removed."""
    for log in sorted(temp_dir.glob("session_2*/logs/*")):
        if log.is_file() and log.suffix in (".out", ".err", ".log") and (size := log.stat().st_size):
            target.mkdir(parents=True, exist_ok=True)
            with log.open("rb") as file:
                file.seek(max(0, size - most))
                (target / log.name).write_bytes(file.read())
