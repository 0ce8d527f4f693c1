"""One Ethernet for a sandbox: a bridge in a namespace of its own, and a cable to each machine.

The bridge lies in the controller's namespace, not on the host. So the host shows a single interface, the firewall
rules that Docker puts on bridges do not apply, and slurmctld opens no port on the host.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .config import SandboxConfig
from .errors import SandboxError
from .layout import Layout
from .processes import run

__all__ = ["Network", "free_octets"]

PREFIX = "10.77"
FIRST_NODE_HOST = 11


@dataclass(frozen=True)
class Network:
    """Addresses of the subnet 10.77.`octet`.0/24: .1 this machine, .2 the controller, .11 and up the nodes."""

    layout: Layout
    config: SandboxConfig
    octet: int

    @property
    def link(self) -> str:
        """The interface that the sandbox has on this machine."""
        return f"htsandbox{self.octet}"

    @property
    def subnet(self) -> str:
        """The subnet in CIDR notation."""
        return f"{PREFIX}.{self.octet}.0/24"

    @property
    def login_address(self) -> str:
        """This machine as the nodes see it."""
        return f"{PREFIX}.{self.octet}.1"

    @property
    def controller_address(self) -> str:
        """Where slurmctld and slurmdbd listen."""
        return f"{PREFIX}.{self.octet}.2"

    @property
    def addresses(self) -> dict[str, str]:
        """The address of each node by name."""
        names = self.config.node_names
        return {name: f"{PREFIX}.{self.octet}.{FIRST_NODE_HOST + index}" for index, name in enumerate(names)}

    @property
    def hosts(self) -> dict[str, str]:
        """The address of every machine by name, for /etc/hosts."""
        return {
            self.config.login_name: self.login_address,
            self.config.controller_name: self.controller_address,
            **self.addresses,
        }

    @classmethod
    def create(cls, layout: Layout, config: SandboxConfig) -> Network:
        """Build the network on the first subnet that is free, and write down which."""
        controller = layout.namespace(config.controller_name)
        for machine in (config.controller_name, *config.node_names):
            _make_namespace(layout.namespace(machine))
        _batch(["link add br0 type bridge", "link set br0 up", "link set lo up"], controller)
        network = cls._plug_in(layout, config)
        layout.network.write_text(json.dumps({"octet": network.octet}))
        _batch([f"addr add {network.controller_address}/24 dev br0"], controller)
        for index, node in enumerate(config.node_names):
            network._cable(index, node)
        return network

    @classmethod
    def _plug_in(cls, layout: Layout, config: SandboxConfig) -> Network:
        """Connect this machine; creating the link is what reserves the subnet against other sandboxes."""
        controller = layout.namespace(config.controller_name)
        failure = SandboxError(f"None of the subnets {PREFIX}.0.0/24 to {PREFIX}.255.0/24 is free.")
        for octet in free_octets(_host_networks()):
            network = cls(layout, config, octet)
            commands = [
                f"link add {network.link} type veth peer name login netns {controller}",
                f"link set {network.link} alias {layout.root}",
                f"addr add {network.login_address}/24 dev {network.link}",
                f"link set {network.link} up",
            ]
            try:
                _batch(commands)
            except SandboxError as error:
                if "File exists" not in str(error):
                    raise
                failure = error
                continue
            _batch(["link set login master br0", "link set login up"], controller)
            return network
        raise failure

    def _cable(self, index: int, node: str) -> None:
        controller, namespace = self.layout.namespace(self.config.controller_name), self.layout.namespace(node)
        cable = [
            f"link add {_port(index)} type veth peer name eth0 netns {namespace}",
            f"link set {_port(index)} master br0",
            f"link set {_port(index)} up",
        ]
        _batch(cable, controller)
        _batch(["link set lo up", f"addr add {self.addresses[node]}/24 dev eth0", "link set eth0 up"], namespace)

    def set_cable(self, node: str, plugged: bool) -> None:
        """Plug a node in or cut it off; cut off, it answers nothing, not even with a reset."""
        port = _port(self.config.node_names.index(node))
        controller = self.layout.namespace(self.config.controller_name)
        _batch([f"link set {port} {'up' if plugged else 'down'}"], controller)

    @classmethod
    def load(cls, layout: Layout, config: SandboxConfig) -> Network:
        """Return the network that `create` built."""
        return cls(layout, config, int(json.loads(layout.network.read_text())["octet"]))

    @staticmethod
    def remove(layout: Layout) -> None:
        """Delete the links and namespaces of a sandbox, however far `create` came."""
        for link in json.loads(run(["ip", "-json", "link", "show"]).stdout):
            if link.get("ifalias") == str(layout.root):
                run(["ip", "link", "delete", link["ifname"]])
        mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
        for namespace in layout.namespaces.glob("*"):
            if str(namespace) in mounts:
                run(["umount", namespace])


def free_octets(taken: Sequence[ipaddress.IPv4Network]) -> Iterator[int]:
    """Yield the third octets of the subnets that overlap none of the given networks."""
    for octet in range(256):
        subnet = ipaddress.IPv4Network(f"{PREFIX}.{octet}.0/24")
        if not any(subnet.overlaps(network) for network in taken):
            yield octet


def _host_networks() -> list[ipaddress.IPv4Network]:
    links = json.loads(run(["ip", "-json", "-4", "addr", "show"]).stdout)
    addresses = [address for link in links for address in link.get("addr_info", [])]
    return [ipaddress.IPv4Network(f"{item['local']}/{item['prefixlen']}", strict=False) for item in addresses]


def _make_namespace(path: Path) -> None:
    path.touch()
    run(["unshare", f"--net={path}", "true"])


def _port(index: int) -> str:
    return f"node{index}"


def _batch(commands: Sequence[str], namespace: Path | None = None) -> None:
    """Run `ip` commands in one process, which stops at the first that fails."""
    enter = [] if namespace is None else ["nsenter", f"--net={namespace}"]
    run([*enter, "ip", "-batch", "-"], stdin="".join(f"{command}\n" for command in commands))
