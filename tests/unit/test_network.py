"""Ports that nobody has, and addresses that other nodes reach."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import astuple
from typing import Any

import pytest

from hpc_tune.errors import HpcTuneError
from hpc_tune.runtime import network
from hpc_tune.runtime.network import answers, free_ports, head_address, worker_address


@contextmanager
def listener(host: str, port: int = 0, family: int = socket.AF_INET) -> Iterator[int]:
    with socket.socket(family) as server:
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind((host, port))
        server.listen()
        yield server.getsockname()[1]


def ephemeral_floor() -> int:
    return int(network.EPHEMERAL_RANGE.read_text().split()[0])


# ------------------------------------------------------------------------------- ports


def test_ports_are_distinct_and_below_those_of_outgoing_connections() -> None:
    for seed in map(str, range(50)):
        ports = astuple(free_ports(seed))
        assert len(set(ports)) == len(ports) == 5
        assert all(10_000 <= port < ephemeral_floor() for port in ports)


def test_a_seed_decides() -> None:
    """Several agents of an attempt, and several starts of one, must not draw the same."""
    assert free_ports("run/attempts/001 1") == free_ports("run/attempts/001 1")
    drawn = [set(astuple(free_ports(f"run/attempts/001 {start}"))) for start in range(1, 4)]
    assert not drawn[0] & drawn[1]
    assert not drawn[1] & drawn[2]


@pytest.mark.parametrize(
    ("host", "family"),
    [("0.0.0.0", socket.AF_INET), ("127.0.0.1", socket.AF_INET), ("::", socket.AF_INET6)],
)
def test_a_port_that_somebody_listens_on_is_never_drawn(host: str, family: int) -> None:
    if family == socket.AF_INET6 and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    drawn = free_ports("taken")
    with ExitStack() as taken:
        for port in astuple(drawn):
            taken.enter_context(listener(host, port, family))
        others = free_ports("taken")
        assert not set(astuple(others)) & set(astuple(drawn))
    assert free_ports("taken") == drawn


def _has_ipv6() -> bool:
    try:
        with listener("::", family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_no_ports_are_free() -> None:
    with ExitStack() as taken:
        for port in range(10_000, 10_200):
            with suppress(OSError):  # somebody else's: as good
                taken.enter_context(listener("0.0.0.0", port))
        with pytest.raises(HpcTuneError, match="of 200 ports between 10000 and 10200 only 0 are free"):
            free_ports("any", floor=10_200)


@pytest.mark.parametrize("text", ["many", None], ids=["no number", "no file"])
def test_a_kernel_that_does_not_say_where_they_begin(
    text: str | None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "range"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(network, "EPHEMERAL_RANGE", file)
    assert all(port < 32768 for port in astuple(free_ports("any")))


def test_an_ephemeral_range_that_begins_low_leaves_some_room(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "range"
    file.write_text("1024\t65535\n")
    monkeypatch.setattr(network, "EPHEMERAL_RANGE", file)
    assert all(10_000 <= port < 11_000 for port in astuple(free_ports("any")))


def test_who_answers() -> None:
    with listener("127.0.0.1") as port:
        assert answers(f"127.0.0.1:{port}")
    assert not answers(f"127.0.0.1:{port}")


# ------------------------------------------------------------------------------- addresses


class Host:
    """What this machine's look-ups say; its own addresses are those of ``own``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *own: str) -> None:
        self.named: list[str] = []
        self.route = "127.0.0.1"
        self.interfaces: dict[str, str] = {"lo": "127.0.0.1"}
        self.looked_up = 0
        monkeypatch.setattr(network, "_is_local", lambda address: address in own)
        monkeypatch.setattr(network, "_address_towards", lambda host: self.route)
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)
        monkeypatch.setattr(socket, "if_nameindex", lambda: list(enumerate(self.interfaces, 1)))
        monkeypatch.setattr(network, "_interface_address", self._address_of)

    def _look_up(self, *arguments: Any) -> list[Any]:
        self.looked_up += 1
        if not self.named:
            raise socket.gaierror("Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in self.named]

    def _address_of(self, name: str) -> str:
        if not self.interfaces.get(name):
            raise HpcTuneError(f"the network interface {name!r} has no IPv4 address")
        return self.interfaces[name]


def test_the_address_that_slurm_used_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up of the node's name may take ten seconds where there is no resolver."""
    host = Host(monkeypatch, "172.17.0.169", "10.0.0.1")
    host.named = ["10.0.0.1"]
    assert head_address(None, "172.17.0.169") == "172.17.0.169"
    assert host.looked_up == 0


@pytest.mark.parametrize("launched_from", ["", "172.17.0.1", "127.0.0.1"])
def test_a_step_that_was_launched_elsewhere(monkeypatch: pytest.MonkeyPatch, launched_from: str) -> None:
    host = Host(monkeypatch, "172.17.0.169", "127.0.0.1", "127.0.1.1")
    host.named = ["127.0.1.1", "172.17.0.169"]  # Debian's hosts file names loopback first
    assert head_address(None, launched_from) == "172.17.0.169"


def test_a_name_that_means_nothing_or_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, "10.0.0.7", "127.0.0.1", "127.0.1.1")
    host.route = "10.0.0.7"
    assert head_address(None, "") == "10.0.0.7"
    host.named = ["127.0.1.1"]
    assert head_address(None, "") == "10.0.0.7"


def test_an_inner_network_without_a_route_to_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, "127.0.0.1", "10.0.0.7")
    host.interfaces = {"lo": "127.0.0.1", "ib0": "", "eth0": "10.0.0.7"}
    assert head_address(None, "") == "10.0.0.7"


def test_a_machine_on_its_own_has_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    Host(monkeypatch, "127.0.0.1")
    assert head_address(None, "") == "127.0.0.1"


def test_the_sites_interface_beats_all(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, "172.17.0.169", "10.1.0.169")
    host.interfaces = {"lo": "127.0.0.1", "eth0": "172.17.0.169", "ib0": "10.1.0.169"}
    host.route = "172.17.0.170"
    assert head_address("ib0", "172.17.0.169") == "10.1.0.169"
    assert worker_address("ib0", "172.17.0.169:10001") == "10.1.0.169"
    assert worker_address(None, "172.17.0.169:10001") == "172.17.0.170"


def test_real_addresses_of_this_machine() -> None:
    assert head_address("lo", "") == worker_address("lo", "192.0.2.1:1") == "127.0.0.1"
    assert worker_address(None, "127.0.0.1:6379") == "127.0.0.1"
    with listener(head_address(None, "")) as port:
        assert answers(f"{head_address(None, '')}:{port}")


@pytest.mark.parametrize("name", ["nope0", "a-name-that-is-far-too-long-for-linux"])
def test_an_interface_that_is_missing(name: str) -> None:
    for ask in (lambda: head_address(name, ""), lambda: worker_address(name, "192.0.2.1:1")):
        with pytest.raises(HpcTuneError) as caught:
            ask()
        assert caught.value.message == f"the network interface {name!r} has no IPv4 address: No such device"
        assert caught.value.hint is not None
        assert caught.value.hint.startswith("this node has lo")
        assert caught.value.hint.endswith("; set interface in the site's profile")
