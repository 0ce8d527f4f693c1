"""The files that Slurm, munge and the machines read, rendered from templates into the state directory."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

import jinja2

from .config import PRIVATE_DIRS, SandboxConfig
from .layout import Layout
from .network import Network
from .processes import run

__all__ = ["render", "slurm_version", "visible_dirs", "write_all"]

TEMPLATES = ("slurm.conf", "gres.conf", "cgroup.conf", "slurmdbd.conf", "hosts", "resolv.conf", "machine.sh")
SECRET = "slurmdbd.conf"
"""slurmdbd refuses to start if others can read it."""
NULL_DEVICE = os.makedev(1, 3)
CGROUP_DISABLED_SINCE = (24, 5)


def render(name: str, layout: Layout, network: Network, version: tuple[int, int]) -> str:
    """Return the text of one configuration file."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "templates"), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    config = network.config
    return environment.get_template(f"{name}.j2").render(
        config=config,
        layout=layout,
        network=network,
        sockets=2 if config.cpus % 2 == 0 else 1,
        cgroup_plugin="disabled" if version >= CGROUP_DISABLED_SINCE else "cgroup/v1",
        shared_dirs=[
            (source, layout.tmp_mount / source.relative_to(PRIVATE_DIRS[0])) for source in visible_dirs(config)
        ],
    )


def write_all(layout: Layout, network: Network) -> None:
    """Write every file that the daemons need before the first of them starts."""
    version = slurm_version(run(["slurmd", "-V"]).stdout)
    for name in TEMPLATES:
        path = layout.root / name
        path.touch(mode=0o600 if name == SECRET else 0o644)
        path.write_text(render(name, layout, network, version))
    key = layout.munge / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    for index in range(network.config.gpus):
        os.mknod(layout.gpus / f"volta{index}", 0o666 | stat.S_IFCHR, NULL_DEVICE)


def slurm_version(text: str) -> tuple[int, int]:
    """Return (22, 5) for `slurm-wlm 22.05.8`, and (0, 0) for what does not look like that."""
    found = re.search(r"(\d+)\.(\d+)\.", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def visible_dirs(config: SandboxConfig) -> list[Path]:
    """Return the directories below /tmp that the nodes must see: the given ones, this Python and its sources.

    A directory inside another one of the list is left out.
    """
    package = Path(__file__).resolve().parents[2]
    wanted = [*config.shared_dirs, Path(sys.prefix), Path(sys.base_prefix), package, Path.cwd()]
    return _outermost(path.resolve() for path in wanted if path.is_dir())


def _outermost(paths: Iterable[Path]) -> list[Path]:
    private = PRIVATE_DIRS[0]
    inside = sorted({path for path in paths if private in path.parents})
    return [path for path in inside if not any(other in path.parents for other in inside)]
