"""The sandbox as it is meant to be used: real daemons, real jobs, real failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hpc_tune_slurm.sandbox import Sandbox, SandboxConfig, SandboxError, SandboxState
from hpc_tune_slurm.sandbox.waiting import wait_until

pytestmark = pytest.mark.slurm

NAMES = ["iris-169", "iris-170", "iris-171", "iris-172"]
CLI = [sys.executable, "-m", "hpc_tune_slurm.sandbox"]


def words(sandbox: Sandbox, *argv: str) -> list[str]:
    return sorted(sandbox.run(argv).stdout.split())


@contextmanager
def job(sandbox: Sandbox, *options: str, script: str, user: str | None = None) -> Iterator[str]:
    """Submit a script; cancel it at the end and wait until it is gone, so that the next test has free nodes."""
    text = f"#!/bin/bash\n{script}\n"
    job_id = sandbox.run(["sbatch", "--parsable", *options], stdin=text, user=user).stdout.strip()
    try:
        yield job_id
    finally:
        sandbox.run(["scancel", job_id], check=False)
        ended = {"COMPLETED", "CANCELLED", "FAILED", "NODE_FAIL"}
        wait_until(lambda: job_state(sandbox, job_id) in ended, f"the end of job {job_id}", 60)


def job_state(sandbox: Sandbox, job_id: str) -> str:
    return sandbox.run(["squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T"]).stdout.strip()


def node_state(sandbox: Sandbox, name: str) -> str:
    return next(node.slurm_state for node in sandbox.status().nodes if node.name == name)


def cli(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *argv], capture_output=True, text=True, timeout=120, check=False)


def test_up_gives_idle_nodes_with_iris_names(slurm_sandbox: Sandbox) -> None:
    slurm_sandbox.wait_idle()
    status = slurm_sandbox.status()
    assert status.state is SandboxState.UP
    assert [node.name for node in status.nodes] == NAMES
    assert status.idle_nodes == 4
    assert words(slurm_sandbox, "srun", "--nodes=4", "hostname") == NAMES


def test_nodes_have_28_cpus_4_gpus_and_the_features_of_iris(slurm_sandbox: Sandbox) -> None:
    facts = set(
        slurm_sandbox.run(["sinfo", "--noheader", "--partition=gpu", "--format=%c %G %f %m"]).stdout.splitlines()
    )
    assert facts == {"28 gpu:volta:4 volta,volta16 64000"}


def test_a_job_gets_the_gpus_it_asked_for(slurm_sandbox: Sandbox) -> None:
    options = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=2"]
    assert words(slurm_sandbox, "srun", *options, "printenv", "CUDA_VISIBLE_DEVICES") == ["0,1", "0,1"]


def test_two_small_jobs_share_a_node(slurm_sandbox: Sandbox) -> None:
    options = ["--nodelist=iris-169", "--gpus=1", "--output=/dev/null"]
    with (
        job(slurm_sandbox, *options, script="sleep 60") as first,
        job(slurm_sandbox, *options, script="sleep 60") as second,
    ):
        for job_id in (first, second):
            wait_until(lambda job_id=job_id: job_state(slurm_sandbox, job_id) == "RUNNING", "both jobs run", 15)


def test_nodes_reach_each_other_and_the_login_node_by_name(slurm_sandbox: Sandbox) -> None:
    look_up = "import socket; print(*(socket.gethostbyname(n) for n in ('iris-172', 'iris-login', 'iris-controller')))"
    subnet = slurm_sandbox.status().subnet.removesuffix("0/24")
    found = slurm_sandbox.exec("iris-169", ["python3", "-c", look_up]).stdout.split()
    assert found == [f"{subnet}{host}" for host in (14, 1, 2)]
    bash_tcp = "for host in iris-170 iris-172; do echo > /dev/tcp/$host/6818; done"  # where every slurmd listens
    slurm_sandbox.exec("iris-171", ["bash", "-c", bash_tcp])


def test_tmp_and_shm_are_private_and_bounded(slurm_sandbox: Sandbox, cluster_dir: Path) -> None:
    slurm_sandbox.exec("iris-169", ["touch", "/tmp/here", "/dev/shm/here", cluster_dir / "shared"])
    assert slurm_sandbox.exec("iris-170", ["ls", "/tmp", "/dev/shm"]).stdout.split() == ["/dev/shm:", "/tmp:"]
    assert (cluster_dir / "shared").exists()
    sizes = slurm_sandbox.exec("iris-169", ["df", "--output=size", "/tmp", "/dev/shm"]).stdout.split()[1:]
    assert sizes == [str(2048 * 1024), str(8192 * 1024)]


def test_orphans_of_a_job_leave_no_zombies(slurm_sandbox: Sandbox) -> None:
    slurm_sandbox.run(
        ["srun", "--nodes=1", "--nodelist=iris-170", "bash", "-c", "(setsid true &); (setsid sleep 0.2 &)"]
    )

    def no_zombie() -> bool:
        return "Z" not in slurm_sandbox.exec("iris-170", ["ps", "-eo", "stat="]).stdout

    wait_until(no_zombie, "process 1 of the node reaps orphans", 5)


def test_jobs_can_be_interrupted(slurm_sandbox: Sandbox) -> None:
    """Those signals are not ignored that Slurm or a user may send; others are as the machine's owner had them."""
    mask = slurm_sandbox.run(["srun", "--nodes=1", "grep", "SigIgn", "/proc/self/status"]).stdout.split()[1]
    ignored = {number for number in range(1, 65) if int(mask, 16) >> (number - 1) & 1}
    sent = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
    sent |= {signal.SIGCONT, signal.SIGTSTP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGALRM}
    assert not ignored & sent


def test_another_user_submits_and_owns_what_the_job_writes(slurm_sandbox: Sandbox, cluster_dir: Path) -> None:
    output = cluster_dir / "job.log"
    options = ["--nodes=2", f"--output={output}", f"--chdir={cluster_dir}", "--wait"]
    with job(slurm_sandbox, *options, script="srun --nodes=2 whoami", user="nobody"):
        assert output.read_text().split() == ["nobody", "nobody"]
        assert output.owner() == "nobody"


def test_second_sandbox_works_beside_the_first(slurm_sandbox: Sandbox, accounting_sandbox: Sandbox) -> None:
    assert words(accounting_sandbox, "srun", "--nodes=2", "hostname") == NAMES[:2]
    assert words(slurm_sandbox, "srun", "--nodes=4", "hostname") == NAMES
    assert slurm_sandbox.status().subnet != accounting_sandbox.status().subnet


def test_accounting_knows_a_finished_job_of_a_user(accounting_sandbox: Sandbox) -> None:
    columns = ["--noheader", "--parsable2", "--allocations", "--format=User,Account,State,ExitCode"]
    with job(accounting_sandbox, "--output=/dev/null", "--chdir=/", script="exit 3", user="nobody") as job_id:

        def recorded() -> bool:
            rows = accounting_sandbox.run(["sacct", f"--jobs={job_id}", *columns], user="nobody").stdout
            return rows.strip() == "nobody|sandbox|FAILED|3:0"

        wait_until(recorded, "sacct shows the job", 20)


def test_without_accounting_sacct_says_so(slurm_sandbox: Sandbox) -> None:
    assert "accounting storage is disabled" in slurm_sandbox.run(["sacct"], check=False).stderr


def test_urgent_job_preempts_and_the_preempted_comes_back(slurm_sandbox: Sandbox, cluster_dir: Path) -> None:
    starts = cluster_dir / "starts"
    victim_script = f"echo ${{SLURM_RESTART_COUNT:-0}} $SLURM_JOB_ID >> {starts}\nsleep 300"
    whole = ["--nodes=4", "--exclusive", "--output=/dev/null"]
    with job(slurm_sandbox, *whole, script=victim_script) as victim:
        wait_until(starts.exists, "the first job starts", 15)
        with job(slurm_sandbox, *whole, "--partition=urgent", script="sleep 300") as urgent:
            wait_until(lambda: job_state(slurm_sandbox, urgent) == "RUNNING", "the urgent job preempts", 75)
            assert job_state(slurm_sandbox, victim) == "PENDING"
        wait_until(lambda: len(starts.read_text().splitlines()) == 2, "the preempted job starts again", 60)
        assert starts.read_text().splitlines() == [f"0 {victim}", f"1 {victim}"]


def test_killed_node_goes_down_alone_and_heals(slurm_sandbox: Sandbox) -> None:
    options = ["--no-kill", "--nodes=2", "--nodelist=iris-171,iris-172", "--output=/dev/null"]
    with job(slurm_sandbox, *options, script="sleep 300") as survivor:
        wait_until(lambda: job_state(slurm_sandbox, survivor) == "RUNNING", "the job runs", 15)
        slurm_sandbox.exec("iris-172", ["touch", "/tmp/lost"])
        slurm_sandbox.kill_node("iris-172")
        try:
            assert [node.is_alive for node in slurm_sandbox.status().nodes] == [True, True, True, False]
            with pytest.raises(SandboxError, match=r"iris-172 is dead.\nType: .* heal-node iris-172"):
                slurm_sandbox.exec("iris-172", ["true"])
            wait_until(lambda: node_state(slurm_sandbox, "iris-172") == "down*", "Slurm misses the node", 75)
            assert slurm_sandbox.run(["squeue", "-h", f"-j{survivor}", "-o%T %N"]).stdout.split() == [
                "RUNNING",
                "iris-171",
            ]
        finally:
            slurm_sandbox.heal_node("iris-172")
    slurm_sandbox.wait_idle()
    assert slurm_sandbox.exec("iris-172", ["ls", "/tmp"]).stdout == ""
    assert words(slurm_sandbox, "srun", "--nodes=4", "hostname") == NAMES


def test_up_twice_changes_nothing(slurm_sandbox: Sandbox) -> None:
    slurm_sandbox.wait_idle()
    before = slurm_sandbox.status()
    assert slurm_sandbox.up() is False
    second = Sandbox(SandboxConfig(state_dir=slurm_sandbox.config.state_dir, nodes=1))
    assert second.up() is False
    assert second.status() == before


def test_command_line_speaks_to_a_running_sandbox(slurm_sandbox: Sandbox) -> None:
    here = f"--state-dir={slurm_sandbox.config.state_dir}"
    again = cli("up", here)
    assert (again.returncode, again.stdout.splitlines()[0][:16]) == (0, "It is up already")
    assert json.loads(cli("status", here, "--json").stdout)["state"] == "up"
    assert cli("env", here).stdout == f"export SLURM_CONF={slurm_sandbox.env()['SLURM_CONF']}\n"
    assert cli("exec", here, "iris-171", "--", "hostname", "--short").stdout == "iris-171\n"
    assert cli("exec", here, "iris-171", "--", "false").returncode == 1
    unknown = cli("kill-node", here, "iris-1")
    assert (unknown.returncode, unknown.stderr.splitlines()[0]) == (1, "There is no node 'iris-1'.")


def test_down_leaves_nothing(new_state_dir: Callable[[str], Path]) -> None:
    sandbox = Sandbox(SandboxConfig(state_dir=new_state_dir("gone"), nodes=2))
    root = str(sandbox.config.state_dir)
    before = machine_facts(root)
    with sandbox:
        sandbox.run(["sbatch", "--output=/dev/null", "--wrap=setsid sleep 1000 & sleep 1000"])
        wait_until(lambda: "sleep" in sandbox.exec("iris-169", ["ps", "-eo", "comm="]).stdout, "the job runs", 15)
        sandbox.kill_node("iris-170")
        assert processes_with(root)
        assert machine_facts(root) > before
    assert processes_with(root) == []
    assert machine_facts(root) <= before
    assert not sandbox.config.state_dir.exists()
    assert sandbox.status().state is SandboxState.DOWN
    assert sandbox.down() is False


def machine_facts(ours: str) -> set[str]:
    """What a sandbox could leave behind: interfaces, mounts, files of daemons; without those of other sandboxes."""
    links = [(link.name, (link / "ifalias").read_text().strip()) for link in Path("/sys/class/net").iterdir()]
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    files = [str(path) for folder in ("/run", "/etc", "/var/lib", "/var/log") for path in Path(folder).iterdir()]
    facts = {alias or name for name, alias in links} | set(mounts) | set(files)
    return {fact for fact in facts if "hpc-tune" not in fact or ours in fact}


def processes_with(text: str) -> list[str]:
    """The processes, zombies apart, that have `text` in their command line or SLURM_CONF."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            seen = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if text.encode() in seen:
            found.append(process.name)
    return found


def test_half_failed_up_names_the_daemon_and_down_clears_it(new_state_dir: Callable[[str], Path]) -> None:
    sandbox = Sandbox(SandboxConfig(state_dir=new_state_dir("half"), nodes=1, extra_conf=("NoSuchKey=1",)))
    try:
        with pytest.raises(SandboxError, match=r"(?s)^(\S+) has stopped.*/log/\1\.log:.*NoSuchKey.*Clear up: .* down"):
            sandbox.up()
        assert sandbox.status().state is SandboxState.BROKEN
    finally:
        assert sandbox.down() is True
    assert not sandbox.config.state_dir.exists()


def test_up_replaces_a_sandbox_that_died(new_state_dir: Callable[[str], Path]) -> None:
    sandbox = Sandbox(SandboxConfig(state_dir=new_state_dir("died"), nodes=1))
    with sandbox:
        record = json.loads((sandbox.config.state_dir / "processes" / "slurmctld.json").read_text())
        os.kill(record["pid"], 9)
        wait_until(lambda: sandbox.status().state is SandboxState.BROKEN, "slurmctld is missed", 10)
        assert sandbox.up() is True
        assert words(sandbox, "srun", "hostname") == ["iris-169"]


def test_directories_below_tmp_are_shared_on_request(tmp_path: Path, new_state_dir: Callable[[str], Path]) -> None:
    (tmp_path / "file").touch()
    with Sandbox(SandboxConfig(state_dir=new_state_dir("share"), nodes=1, shared_dirs=(tmp_path,))) as sandbox:
        assert sandbox.exec("iris-169", ["ls", tmp_path]).stdout == "file\n"


def test_a_laptop_whose_name_does_not_resolve(slurm_sandbox: Sandbox) -> None:
    script = "hostname no-such-name && mount --bind /dev/null /etc/resolv.conf && exec srun --nodes=2 hostname"
    found = slurm_sandbox.run(["unshare", "--uts", "--mount", "sh", "-c", script], timeout=8)
    assert sorted(found.stdout.split()) == NAMES[:2]


def test_without_root_it_says_what_for() -> None:
    capability = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # to read this Python
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *capability]
    for command in (["up"], ["down"]):
        done = subprocess.run([*nobody, *CLI, *command], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            "The Slurm sandbox needs root, for network, mount and process namespaces, device files "
            "and jobs of other users.",
            f"Type: sudo {sys.executable} -m hpc_tune_slurm.sandbox {command[0]}",
        ]
