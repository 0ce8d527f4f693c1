"""The parts of the sandbox that need neither root nor Slurm."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hpc_tune_slurm.sandbox import SandboxConfig, SandboxConfigError, SandboxError, SandboxUnavailableError, packages
from hpc_tune_slurm.sandbox.cli import SETTINGS, main
from hpc_tune_slurm.sandbox.configuration import render, slurm_version, visible_dirs
from hpc_tune_slurm.sandbox.daemons import Daemons
from hpc_tune_slurm.sandbox.errors import SandboxTimeoutError
from hpc_tune_slurm.sandbox.layout import Layout
from hpc_tune_slurm.sandbox.network import Network, free_octets
from hpc_tune_slurm.sandbox.processes import StartedProcess, as_user, children, run, start
from hpc_tune_slurm.sandbox.status import parse_node_states
from hpc_tune_slurm.sandbox.waiting import wait_until

# What `sinfo --noheader --Node --format='%N %T'` of Slurm 22.05 says of two partitions.
SINFO = "iris-169 idle\niris-169 idle\niris-170 mixed\niris-170 mixed\niris-171 down*\niris-171 down*\n"


def rendered(name: str, version: tuple[int, int] = (22, 5), **settings: Any) -> str:
    config = SandboxConfig(**settings)
    layout = Layout(config.state_dir)
    return render(name, layout, Network(layout, config, 7), version)


def test_every_fault_of_the_settings_is_named_at_once() -> None:
    with pytest.raises(SandboxConfigError) as caught:
        SandboxConfig(nodes=0, cpus=0, gpus=-1, cluster_name="Iris cluster", state_dir=Path("/tmp/x y"))
    for fault in ("nodes is 0", "cpus is 0", "gpus is -1", "'Iris cluster'", "below /tmp", "cannot quote"):
        assert fault in caught.value.message


@pytest.mark.parametrize("path", ["/tmp/sandbox", "/dev/shm/sandbox", "relative", "/var/../var/lib/x", "/" + "x" * 70])
def test_state_directories_that_cannot_work_are_refused(path: str) -> None:
    with pytest.raises(SandboxConfigError, match="state directory"):
        SandboxConfig(state_dir=Path(path))


def test_the_longest_accepted_state_directory_leaves_room_for_sockets() -> None:
    config = SandboxConfig(state_dir=Path("/" + "x" * 61))
    step_socket = f"{config.state_dir}/spool/iris-169/iris-169_999999999.4294967294"
    assert len(step_socket) == 107
    with pytest.raises(SandboxConfigError, match="1 characters too long"):
        SandboxConfig(state_dir=Path("/" + "x" * 62))


def test_settings_survive_their_file() -> None:
    config = SandboxConfig(nodes=2, users=("nobody",), shared_dirs=(Path("/tmp/a"),), extra_conf=("A=1",))
    assert SandboxConfig.from_json(config.to_json()) == config
    assert SandboxConfig.from_json(config.to_json().replace("{", '{"of_a_later_version": 1,', 1)) == config


def test_cluster_name_names_the_nodes() -> None:
    assert SandboxConfig(cluster_name="aion", nodes=2).node_names == ("aion-169", "aion-170")


def test_slurm_conf_has_what_the_settings_say() -> None:
    text = rendered("slurm.conf", cpus=28, memory=56000, grace_time=9, requeue_delay=15, extra_conf=("Foo=1", "Bar=2"))
    for line in (
        "SlurmctldHost=iris-controller(10.77.7.2)",
        "AuthInfo=socket=/var/lib/hpc-tune-sandbox/munge/munge.socket.2,cred_expire=15",
        "DefMemPerCPU=2000",
        "AccountingStorageType=accounting_storage/none",
        "NodeName=iris-172 NodeAddr=10.77.7.14",
        "PartitionName=gpu Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=9",
        "PartitionName=urgent PriorityTier=10 PreemptMode=OFF",
    ):
        assert line in text.splitlines()
    assert text.endswith("Foo=1\nBar=2\n")


@pytest.mark.parametrize(
    ("cpus", "shape"), [(28, "SocketsPerBoard=2 CoresPerSocket=14"), (3, "SocketsPerBoard=1 CoresPerSocket=3")]
)
def test_sockets_times_cores_are_the_cpus(cpus: int, shape: str) -> None:
    assert f"CPUs={cpus} Boards=1 {shape} " in rendered("slurm.conf", cpus=cpus)


def test_without_gpus_no_gres_is_mentioned() -> None:
    text = rendered("slurm.conf", gpus=0, accounting=True) + rendered("gres.conf", gpus=0)
    assert "gpu:" not in text
    assert "GresTypes" not in text
    assert "gres/gpu" not in text


def test_accounting_is_configured_on_request() -> None:
    text = rendered("slurm.conf", accounting=True)
    assert "AccountingStorageHost=10.77.7.2\n" in text
    assert "AccountingStoragePass=/var/lib/hpc-tune-sandbox/munge/munge.socket.2\n" in text
    assert "DbdAddr=10.77.7.2\n" in rendered("slurmdbd.conf", accounting=True)


@pytest.mark.parametrize(("version", "plugin"), [((22, 5), "cgroup/v1"), ((24, 5), "disabled"), ((0, 0), "cgroup/v1")])
def test_cgroups_are_kept_out(version: tuple[int, int], plugin: str) -> None:
    assert f"CgroupPlugin={plugin}\n" in rendered("cgroup.conf", version)


@pytest.mark.parametrize(
    ("text", "version"),
    [("slurm-wlm 22.05.8\n", (22, 5)), ("slurm 24.11.0-rc1", (24, 11)), ("", (0, 0)), ("what?", (0, 0))],
)
def test_slurm_version(text: str, version: tuple[int, int]) -> None:
    assert slurm_version(text) == version


def test_machine_script_is_bash_and_quotes(tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    folder.mkdir()
    text = rendered("machine.sh", nodes=1, shared_dirs=(folder,), tmp=77)
    assert f"mount --rbind '{folder}' " in text
    assert "size=77m" in text
    run(["bash", "-n"], stdin=text)


def test_hosts_names_every_machine() -> None:
    names = [line.split()[1] for line in rendered("hosts", nodes=2).splitlines()]
    assert names == ["localhost", "localhost", "iris-login", "iris-controller", "iris-169", "iris-170"]


def test_only_the_outermost_directories_below_tmp_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, other = tmp_path / "a" / "b", tmp_path / "c"
    inner.mkdir(parents=True)
    other.mkdir()
    monkeypatch.chdir(other)
    found = visible_dirs(SandboxConfig(shared_dirs=(inner, tmp_path / "a", Path("/usr"), tmp_path / "missing")))
    assert [path for path in found if tmp_path in path.parents] == [tmp_path / "a", other]
    assert Path("/usr") not in found


def test_subnets_in_use_are_left_alone() -> None:
    taken = [
        ipaddress.IPv4Network("10.77.0.0/24"),
        ipaddress.IPv4Network("10.77.2.128/25"),
        ipaddress.IPv4Network("10.0.0.0/30"),
    ]
    free = list(free_octets(taken))
    assert free[:3] == [1, 3, 4]
    assert len(free) == 254
    assert list(free_octets([ipaddress.IPv4Network("10.0.0.0/8")])) == []


def test_interface_names_fit_the_kernel() -> None:
    config = SandboxConfig()
    assert len(Network(Layout(config.state_dir), config, 255).link) <= 15


def test_parse_node_states() -> None:
    assert parse_node_states(SINFO) == {"iris-169": "idle", "iris-170": "mixed", "iris-171": "down*"}
    assert parse_node_states("slurm_load_partitions: Unable to contact slurm controller (connect failure)\n") == {}


def test_wait_until_returns_the_value_or_says_what_it_waited_for() -> None:
    values = iter([0, 0, 3])
    assert wait_until(lambda: next(values), "a number", 5, interval=0.001) == 3
    with pytest.raises(SandboxTimeoutError, match=r"Waited 0.02 s in vain: a number\."):
        wait_until(lambda: 0, "a number", 0.02, interval=0.001)


def test_run_tells_why_a_command_failed() -> None:
    with pytest.raises(SandboxError, match=r"`sh -c echo no >&2; exit 3` ended with exit code 3: no"):
        run(["sh", "-c", "echo no >&2; exit 3"])
    with pytest.raises(SandboxError, match=r"`sleep 5` took longer than 0\.05 s"):
        run(["sleep", "5"], timeout=0.05)
    with pytest.raises(SandboxError, match="`no-such-program` cannot be run: No such file"):
        run(["no-such-program"])


def test_run_passes_input_and_environment() -> None:
    done = run(["sh", "-c", 'cat; echo "$MARK"'], env={"MARK": "here"}, stdin="in-")
    assert done.stdout == "in-here\n"


def test_as_user_names_ids_and_refuses_strangers() -> None:
    assert as_user(None, ["id"]) == ["id"]
    assert as_user("root", ["id"])[:3] == ["setpriv", "--reuid=0", "--regid=0"]
    with pytest.raises(SandboxError, match="no user 'no-such-user'"):
        as_user("no-such-user", ["id"])


def test_started_process_is_remembered_and_ended(tmp_path: Path) -> None:
    process = start("napper", ["sleep", "60"], tmp_path / "log", {})
    process.save(tmp_path)
    assert StartedProcess.load(tmp_path) == {"napper": process}
    assert process.is_alive
    assert process.pid in children(os.getpid())
    process.end()
    assert not process.is_alive
    process.end()


def test_a_later_process_with_the_same_number_is_not_ours(tmp_path: Path) -> None:
    other = StartedProcess("other", os.getpid(), 1, "another-boot")
    assert not other.is_alive
    other.end()  # would end this very test


def test_log_tail_shows_the_last_lines(tmp_path: Path) -> None:
    daemons = Daemons(Layout(tmp_path), SandboxConfig())
    assert daemons.log_tail("slurmctld") == f"The end of {tmp_path}/log/slurmctld.log:\n  (empty)"
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "slurmctld.log").write_text("".join(f"line {n}\n" for n in range(100)))
    assert daemons.log_tail("slurmctld").splitlines()[1::14] == ["  line 85", "  line 99"]


def test_a_directory_of_somebody_else_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(SandboxError, match="no sandbox's"), Layout(tmp_path).locked():
        pass
    assert (tmp_path / "precious").exists()


def test_two_commands_at_once_are_refused(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with layout.locked(), pytest.raises(SandboxError, match="Another command is at work"), layout.locked():
        pass
    with layout.locked():
        pass


def test_clear_keeps_the_mark_until_the_end(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    config = SandboxConfig(nodes=1)
    with layout.locked():
        layout.create(config)
        assert layout.read_config() == config
        layout.clear()
        assert list(layout.root.iterdir()) == []
    with pytest.raises(SandboxError, match="There is no sandbox in"):
        layout.read_config()


def test_missing_packages_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(
        packages, "find_program", lambda name: None if name in {"slurmd", "sinfo", "slurmdbd"} else name
    )
    with pytest.raises(SandboxUnavailableError) as caught:
        packages.check_machine(accounting=True)
    assert caught.value.message == "Debian packages are missing: slurm-wlm, slurmdbd."
    assert "Type: apt-get install --yes --no-install-recommends slurm-wlm slurmdbd\n" in caught.value.hint
    assert packages.missing_packages(accounting=False) == ["slurm-wlm"]


@pytest.mark.parametrize("existing", [True, False])
def test_install_forbids_services_and_leaves_no_policy(
    existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy-rc.d"
    if existing:
        policy.write_text("theirs")
    calls: list[list[str]] = []

    def apt(argv: list[str], **_: object) -> None:
        assert policy.exists()
        assert not os.access(policy, os.X_OK)
        assert "exit 101" in Path(argv[5]).read_text()
        calls.append(argv)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(packages, "POLICY", policy)
    monkeypatch.setattr(packages, "run", apt)
    monkeypatch.setattr(packages, "find_program", lambda name: None if name == "munged" else name)
    assert packages.install(accounting=False) == ["munge"]
    assert calls[0][-1] == "munge"
    assert policy.exists() == existing
    monkeypatch.setattr(packages, "find_program", lambda name: name)
    assert packages.install(accounting=False) == []
    assert len(calls) == 1


def invoke(*argv: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, argv)
    return result.exit_code, result.output


@pytest.mark.parametrize("command", ["up", "down", "status", "kill-node", "heal-node", "env", "exec"])
def test_every_command_has_help(command: str) -> None:
    code, output = invoke(command, "--help")
    assert code == 0
    assert "--state-dir" in output


def test_up_has_an_option_for_every_setting() -> None:
    output = invoke("up", "--help")[1]
    for setting in SETTINGS:
        assert f"--{setting.replace('_', '-')}" in output


@pytest.mark.parametrize("argv", [["env"], ["kill-node", "iris-169"], ["exec", "iris-169", "--", "true"]])
def test_commands_without_a_sandbox_say_how_to_start_one(argv: list[str], tmp_path: Path) -> None:
    code, output = invoke(argv[0], f"--state-dir={tmp_path}", *argv[1:])
    assert code == 1
    assert output.splitlines()[0] == f"There is no sandbox in {tmp_path}."
    assert f"up --state-dir {tmp_path}" in output


def test_impossible_settings_end_with_usage_error_and_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hpc_tune_slurm.sandbox", "up", "--nodes=0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "This sandbox cannot be built: nodes is 0, possible are 1 to 200.\n"


def test_status_of_nothing_is_down(tmp_path: Path) -> None:
    assert invoke("status", "--state-dir=/var/lib/no-such-sandbox") == (1, "/var/lib/no-such-sandbox: down\n")
