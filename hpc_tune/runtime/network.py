"""Addresses and ports of a node."""

from __future__ import annotations

import fcntl
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from hpc_tune.errors import HpcTuneError

__all__ = ["Ports", "answers", "free_ports", "head_address", "worker_address"]

LOWEST_PORT = 10_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_SIOCGIFADDR = 0x8915  # netdevice(7)


@dataclass(frozen=True)
class Ports:
    """The ports of Ray's services on one node that Ray would else take from its fixed defaults.

    Raylet and workers bind to port 0 and tell the others what the kernel gave them: nobody can be in their way.
    """

    gcs: int
    dashboard: int
    dashboard_agent: int
    runtime_env_agent: int
    metrics: int


def free_ports(seed: str, *, floor: int | None = None) -> Ports:
    """Draw ports that nobody listens on, below those that the kernel hands out to outgoing connections.

    Ray probes a port, lets go of it and binds it later: above the floor any connection may take it in between.
    Another seed gives other ports, for when one was taken all the same.

    Raises:
        HpcTuneError: if there are hardly any free ports.
    """
    ceiling = _ephemeral_floor() if floor is None else floor
    drawn = random.Random(seed).sample(range(LOWEST_PORT, ceiling), 200)
    free = [port for port in drawn if _is_free(port)][: len(Ports.__dataclass_fields__)]
    if len(free) < len(Ports.__dataclass_fields__):
        raise HpcTuneError(f"of 200 ports between {LOWEST_PORT} and {ceiling} only {len(free)} are free")
    return Ports(*free)


def _ephemeral_floor() -> int:
    try:
        return max(int(EPHEMERAL_RANGE.read_text().split()[0]), LOWEST_PORT + 1000)
    except (OSError, ValueError):
        return 32768  # Linux's default


def _is_free(port: int) -> bool:
    with closing(socket.socket(socket.AF_INET)) as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
        return True


def answers(address: str, *, seconds: float = 1.0) -> bool:
    """Tell whether somebody accepts connections at ``IP:port``."""
    host, _, port = address.rpartition(":")
    try:
        with closing(socket.create_connection((host, int(port)), timeout=seconds)):
            return True
    except OSError:
        return False


def head_address(interface: str | None, launch_address: str) -> str:
    """Return the IP address that the other nodes reach this one at: the head's.

    The interface that the site names comes first. Else it is the address from which Slurm launched this step, since
    all nodes have just been reached from there; then what the host's name stands for; then whatever is not loopback.

    Raises:
        HpcTuneError: if the interface does not exist or has no IPv4 address.
    """
    if interface is not None:
        return _interface_address(interface)
    candidates = filter(None, _candidates(launch_address))
    return next((each for each in candidates if not each.startswith("127.") and _is_local(each)), "127.0.0.1")


def worker_address(interface: str | None, head: str) -> str:
    """Return the IP address from which this node reaches the head, which is one that the head reaches back."""
    return _interface_address(interface) if interface is not None else _address_towards(head.rpartition(":")[0])


def _interface_address(interface: str) -> str:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", interface[:15].encode()))
        except OSError as error:
            names = ", ".join(name for _, name in socket.if_nameindex())
            raise HpcTuneError(
                f"the network interface {interface!r} has no IPv4 address: {error.strerror}",
                hint=f"this node has {names}; set interface in the site's profile",
            ) from error
    return socket.inet_ntoa(answer[20:24])


def _candidates(launch_address: str) -> Iterator[str]:
    """Yield one by one: on a node without a resolver a look-up of its name takes seconds."""
    yield launch_address
    yield from _named_addresses()
    # a documentation address: nothing is sent, the kernel only looks up a route, which an inner network may not have
    yield _address_towards("192.0.2.1")
    yield from _interface_addresses()


def _interface_addresses() -> Iterator[str]:
    for _, name in socket.if_nameindex():
        with suppress(HpcTuneError):  # it has no IPv4 address
            yield _interface_address(name)


def _named_addresses() -> Iterator[str]:
    with suppress(OSError):
        yield from (str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET))


def _is_local(address: str) -> bool:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
        return True


def _address_towards(host: str) -> str:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect((host, 9))
        except OSError:  # no route to anywhere: a machine on its own
            return "127.0.0.1"
        return str(probe.getsockname()[0])
