"""Which programs a sandbox needs, which Debian packages have them, and how to get those without their services."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .errors import SandboxUnavailableError
from .processes import run

__all__ = ["check_machine", "find_program", "install", "missing_packages"]

PACKAGES: Mapping[str, str] = {
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sinfo": "slurm-wlm",
    "munged": "munge",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "hostname": "hostname",
    "bash": "bash",
}
ACCOUNTING_PACKAGES: Mapping[str, str] = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server-core",
    "mariadb-install-db": "mariadb-server-core",
    "my_print_defaults": "mariadb-client-core",
}
"""The -core packages have the programs without the system service of mariadb-server."""
APT_INSTALL = ("apt-get", "install", "--yes", "--no-install-recommends")
POLICY = Path("/usr/sbin/policy-rc.d")
"""Debian's packages ask this program before they start a service; 101 means no."""
ROOT_NEEDED_FOR = "network, mount and process namespaces, device files and jobs of other users"


def find_program(name: str) -> str | None:
    """Return a program's path; daemons lie in directories that a user's PATH may lack."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")


def missing_packages(accounting: bool) -> list[str]:
    """Return the Debian packages that must be installed first, each once."""
    wanted = {**PACKAGES, **(ACCOUNTING_PACKAGES if accounting else {})}
    return sorted({package for program, package in wanted.items() if find_program(program) is None})


def check_root() -> None:
    """Raise with the command to type if this process is not root's."""
    if os.geteuid() != 0:
        command = sys.argv[1:] if Path(sys.argv[0]).name == "__main__.py" else ["up"]
        typed = shlex.join(["sudo", sys.executable, "-m", "hpc_tune_slurm.sandbox", *command])
        raise SandboxUnavailableError(f"The Slurm sandbox needs root, for {ROOT_NEEDED_FOR}.", f"Type: {typed}")


def check_machine(accounting: bool) -> None:
    """Raise with everything that is missing on this machine.

    Raises:
        SandboxUnavailableError: Not Linux, not root, or programs are missing.
    """
    if sys.platform != "linux":
        raise SandboxUnavailableError("The Slurm sandbox needs Linux; use a Debian or Ubuntu virtual machine.")
    check_root()
    if missing := missing_packages(accounting):
        command = " ".join([*APT_INSTALL, *missing])
        hint = f"Type: {command}\nor let `up --install` do it, which keeps their system services from starting."
        raise SandboxUnavailableError(f"Debian packages are missing: {', '.join(missing)}.", hint)


def install(accounting: bool) -> list[str]:
    """Install what is missing, without starting a system service, and return the packages.

    A policy-rc.d that forbids starting is bound over the machine's own in a mount namespace that only apt-get is in.
    Where the machine has none, an empty, not executable file, which has no effect, stands there meanwhile.
    """
    check_root()
    packages = missing_packages(accounting)
    if not packages:
        return []
    if find_program("apt-get") is None:
        raise SandboxUnavailableError("There is no apt-get here.", f"Install: {', '.join(packages)}")
    placed = not POLICY.exists()
    POLICY.touch(mode=0o644)
    try:
        _apt_install(packages)
    finally:
        if placed:
            POLICY.unlink(missing_ok=True)
    return packages


def _apt_install(packages: list[str]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix="-policy-rc.d") as policy:
        policy.write("#!/bin/sh\nexit 101\n")
        policy.flush()
        Path(policy.name).chmod(0o755)
        script = f'mount --bind "$0" {POLICY} && apt-get update && exec {" ".join(APT_INSTALL)} "$@"'
        argv = ["unshare", "--mount", "sh", "-c", script, policy.name, *packages]
        run(argv, env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=1800)
