"""Searches on a real Ray, started as a user starts them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

COMMAND = Path(sys.executable).with_name("hpc-tune")


class Search:
    """An experiment in a folder of its own, and the commands on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs_dir = folder / "runs"
        self.environment = dict(os.environ)
        self._started: list[subprocess.Popen[str]] = []

    def write(self, trainable: str, experiment: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "train.py").write_text(trainable)
        base = {"name": "search", "trainable": "train.py:train", "metric": "score", "mode": "max"}
        (self.folder / "search.json").write_text(json.dumps(base | dict(experiment)))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(COMMAND), *arguments, "--runs-dir", str(self.runs_dir)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def call(self, *arguments: str, exit_code: int = 0) -> str:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == exit_code, output
        assert "Traceback" not in output
        return output

    def run(self, *arguments: str, exit_code: int = 0) -> str:
        return self.call("run", "search.json", *arguments, exit_code=exit_code)

    @property
    def directory(self) -> Path:
        (only,) = self.runs_dir.iterdir()
        return only

    def table(self, name: str = "trials") -> list[dict[str, str]]:
        with (self.directory / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def reported(self) -> int:
        """Return how many results all runs' trials have reported so far."""
        return sum(len(path.read_bytes().splitlines()) for path in self.runs_dir.glob("*/storage/*/result.json"))

    @staticmethod
    def driver_of(process: subprocess.Popen[str]) -> int:
        """Return the id of the process that runs Tune for a command."""
        (driver,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return int(driver)

    def kill_driver(self, process: subprocess.Popen[str], number: int) -> None:
        """Send a command's driver a signal, and wait until the command has ended, as interrupted."""
        os.kill(self.driver_of(process), number)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1, output

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
            if process.stdout:
                process.stdout.close()


@pytest.fixture
def search(tmp_path: Path) -> Iterator[Search]:
    made = Search(tmp_path / "experiment")
    yield made
    made.end()


def wait_until(condition: Callable[[], bool], *, seconds: float = 90, what: str = "the condition") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(0.02)
