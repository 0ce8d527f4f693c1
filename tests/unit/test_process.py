"""Whether a process lives, and ending all that it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_tune.process import MARK, end_marked, is_alive

FAMILY = """
import subprocess, sys, time
code = "import subprocess, time; print(subprocess.Popen(['sleep', '100']).pid, flush=True); time.sleep(100)"
if sys.argv[1:] == ["exit"]:
    subprocess.Popen([sys.executable, "-c", code])
else:
    subprocess.run([sys.executable, "-c", code])
"""
UNREADABLE_NAME = """
import ctypes, time
ctypes.CDLL(None).prctl(15, b"caf\\xe9) Z 1 \\xff")
print("ready", flush=True)
time.sleep(100)
"""


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def marked(value: str) -> dict[str, str]:
    return os.environ | {MARK: value}


@pytest.mark.parametrize("parent_stays", [True, False])
def test_an_attempt_ends_down_to_its_grandchildren(parent_stays: bool) -> None:
    command = [sys.executable, "-c", FAMILY, *([] if parent_stays else ["exit"])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=marked("/runs/a/1")) as leader:
        assert leader.stdout is not None
        grandchild = int(leader.stdout.readline())
        if not parent_stays:
            leader.wait(timeout=10)
        assert is_alive(grandchild)
        end_marked("/runs/a/1")
        assert not is_alive(grandchild)
        assert not is_alive(leader.pid)


def test_descendants_end_with_those_that_lost_their_parent_and_some_are_spared() -> None:
    """In a process of its own, which becomes the parent of orphans."""
    code = """
import subprocess
from hpc_tune.process import adopt_orphans, descendants, end_descendants, is_alive
adopt_orphans()
spared = subprocess.Popen(["sleep", "100"])
child = subprocess.Popen(["sh", "-c", "sleep 100 & wait"])
said = subprocess.run(["sh", "-c", "setsid sleep 100 >/dev/null & echo $!"], stdout=subprocess.PIPE).stdout
assert {spared.pid, child.pid, int(said)} <= descendants()
end_descendants({spared.pid})
assert descendants() == {spared.pid}
assert child.wait() == 0 or child.returncode < 0
spared.kill()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_process_that_left_its_session_is_found() -> None:
    with subprocess.Popen(["sleep", "100"], start_new_session=True, env=marked("/runs/a/1")) as daemon:
        end_marked("/runs/a/1")
        assert daemon.wait(timeout=5) == -signal.SIGKILL


def test_other_attempts_are_left_alone() -> None:
    ours, other = (subprocess.Popen(["sleep", "100"], env=marked(f"/runs/{name}")) for name in ("a", "a/1"))
    with ours, other:
        end_marked("/runs/a")
        assert ours.wait(timeout=5) == -signal.SIGKILL
        assert is_alive(other.pid)
        other.kill()


def test_an_attempt_that_is_over_takes_no_time() -> None:
    begin = time.monotonic()
    end_marked("/runs/over")
    assert time.monotonic() - begin < 1


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen(["true"]) as zombie:
        stat = Path(f"/proc/{zombie.pid}/stat")
        assert until(lambda: ") Z " in stat.read_text())
        assert not is_alive(zombie.pid)
    assert not is_alive(zombie.pid)


def test_this_process_is_alive_and_a_number_beyond_all_is_not() -> None:
    assert is_alive(os.getpid())
    assert not is_alive(2**22 + 1)


def test_a_process_may_have_any_name() -> None:
    """A neighbour's process with a name that is no UTF-8 must not keep ours from being ended."""
    command = [sys.executable, "-c", UNREADABLE_NAME]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=marked("/runs/named")) as named:
        assert named.stdout is not None
        named.stdout.readline()
        assert is_alive(named.pid)
        end_marked("/runs/named")
        assert named.wait(timeout=5) == -signal.SIGKILL


OVERWRITES = """
import sys, time
from ray._raylet import setproctitle
setproctitle("ray::Agent")
print("ready", flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("leader_lives", [True, False])
def test_a_process_that_wrote_its_title_over_the_mark_is_found_by_its_session(leader_lives: bool) -> None:
    start = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1]]); time.sleep(100)"
    command = [sys.executable, "-c", start, OVERWRITES]
    environment = {MARK: "/runs/titled", "PATH": os.environ["PATH"]}  # short: all of it is written over
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True) as leader:
        assert leader.stdout is not None
        leader.stdout.readline()
        (agent,) = (int(pid) for pid in Path(f"/proc/{leader.pid}/task/{leader.pid}/children").read_text().split())
        assert MARK.encode() not in Path(f"/proc/{agent}/environ").read_bytes()
        if not leader_lives:
            leader.kill()
            leader.wait()
        end_marked("/runs/titled", sessions=() if leader_lives else [leader.pid])
        assert not is_alive(agent)
