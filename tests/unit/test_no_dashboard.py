"""What stands in for Ray's dashboard agent; the raylet is a test here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hpc_tune_slurm.sandbox.waiting import wait_until

from hpc_tune.runtime.ray_start import AGENT, STAND_IN, without_agent

PORTS = {"metrics_agent_port_n1": "-1", "metrics_export_port_n1": "-1", "dashboard_agent_listen_port_n1": "-1"}


@contextmanager
def stand_in(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-m", STAND_IN, *arguments]) as process:
        try:
            yield process
        finally:
            process.terminate()


def test_it_says_that_it_serves_on_no_port_and_waits(tmp_path: Path) -> None:
    with stand_in("--node-ip-address=10.77.0.11", f"--session-dir={tmp_path}", "--node-id=n1", "--head") as process:
        wait_until(lambda: {each.name for each in tmp_path.iterdir()} == set(PORTS), "the ports are there", 30, 0.05)
        assert {each.name: each.read_text() for each in tmp_path.iterdir()} == PORTS
        assert process.poll() is None
    assert process.returncode == -15


def test_it_imports_no_ray() -> None:
    code = f"import sys, {STAND_IN}; print('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("packages", ["/venv/site-packages", "/my venv/site-packages"])
def test_it_takes_the_place_of_the_agent_and_of_nothing_else(packages: str) -> None:
    agent = f"{packages}/ray/dashboard/agent.py"
    words = ["/my venv/bin/python", "-u", agent, "--node-id=n1", "--session-dir=/tmp/x y"]
    other = "--runtime_env_agent_command=" + subprocess.list2cmdline(["python", f"{packages}/ray/agent/main.py"])
    program, option, untouched = without_agent(["raylet", AGENT + subprocess.list2cmdline(words), other], agent)
    assert (program, untouched) == ("raylet", other)
    assert (
        option
        == AGENT + '"/my venv/bin/python" -u -m hpc_tune.runtime.no_dashboard --node-id=n1 "--session-dir=/tmp/x y"'
    )


def test_where_ray_starts_it_in_another_way_nothing_changes() -> None:
    command = ["raylet", f"{AGENT}python -m ray.dashboard.agent --node-id=n1"]
    assert without_agent(command, "/venv/ray/dashboard/agent.py") == command
