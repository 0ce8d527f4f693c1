"""What of a machine, a cluster and a place for runs would make a search fail, before it is tried."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from hpc_tune.errors import HpcTuneError
from hpc_tune.operations.machine_facts import MachineFacts
from hpc_tune.operations.sites import choose_site
from hpc_tune.room import as_size
from hpc_tune.site import LONGEST_TEMP_DIR, Site
from hpc_tune.slurm.client import Slurm

__all__ = [
    "LOCAL",
    "Check",
    "file_system",
    "machine_checks",
    "parse_quota",
    "place_checks",
    "same_software",
    "site_of",
    "slurm_checks",
]

NEEDED = ("sbatch", "squeue", "scancel", "scontrol", "srun")
USEFUL = {"sacct": "jobs that Slurm has forgotten are unknown", "sinfo": "a site without a profile is not detected"}
OPEN_FILES, FEWEST_FILES = 65535, 4096
PROCESSES = 4096
SHARED_MEMORY = 2**30
TEMP_FREE, LEAST_TEMP = 2 * 2**30, 100 * 2**20
FREE, LEAST_FREE = 5 * 2**30, 2**28
INODES, FEWEST_INODES = 100_000, 2_000
LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs"}
"""File systems of one machine alone, unless it is a server that exports them."""
SECONDS = 10.0
"""How long a question about quota may take."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "warn", "fail"]
    """``warn``: searches run, but not always or not well."""
    sentence: str
    fix: str = ""


def site_of(slurm: Slurm | None) -> tuple[Site | None, Check]:
    """Return the profile that jobs from here would use; where Slurm cannot be asked, the one that knows nothing."""
    try:
        site, how = choose_site(None, slurm)
    except HpcTuneError as error:
        return None, Check("site", "fail", error.message, error.hint or "hpc-tune site list")
    if how.startswith("detected"):
        return site, Check("site", "warn", how, "hpc-tune site detect --write, then add the environment of your jobs")
    return site, Check("site", "ok", f"profile {site.name}: {how}")


def slurm_checks(slurm: Slurm) -> Iterator[Check]:
    """Check Slurm's commands and whether it answers."""
    if not slurm.is_installed:
        yield Check("slurm", "warn", "there is no Slurm here", "hpc-tune run works; for submit, log in to a cluster")
        return
    if missing := [name for name in NEEDED if not slurm.has(name)]:
        yield Check("slurm", "fail", f"{', '.join(missing)} missing", "load the module of Slurm, or ask the site")
        return
    for name, loss in USEFUL.items():
        if not slurm.has(name):
            yield Check(name, "warn", f"{name} is missing: {loss}", "ask the site to install it")
    try:
        config = slurm.config()
    except HpcTuneError as error:
        yield Check("slurm", "fail", error.message, error.hint or "try again in a few minutes")
    else:
        yield Check("slurm", "ok", f"Slurm {config.version} of cluster {config.cluster_name}")


def machine_checks(facts: MachineFacts, *, wants_gpus: bool = False) -> Iterator[Check]:
    """Check what was found on a machine.

    Args:
        facts: what was found.
        wants_gpus: whether trials here are to have GPUs.
    """
    yield _ray(facts)
    if wants_gpus:
        yield _torch(facts)
    yield _open_files(facts.open_files)
    yield _processes(facts.processes)
    yield _shared_memory(facts.shared_memory)
    yield from _temp_dir(facts)
    yield from _environment(facts)


def _ray(facts: MachineFacts) -> Check:
    wanted = next((each for each in metadata.requires("hpc-tune") or [] if each.startswith("ray")), "ray")
    found = f"Python {facts.python}, Ray {facts.ray}, hpc-tune {facts.hpc_tune}"
    if facts.ray is None:
        return Check("ray", "fail", f"Ray is not installed for {facts.executable}", f"pip install '{wanted}'")
    lowest, highest = re.search(r">=([\d.]+)", wanted), re.search(r"<([\d.]+)", wanted)
    version = _parts(facts.ray)
    fits = (lowest is None or version >= _parts(lowest[1])) and (highest is None or version < _parts(highest[1]))
    if not fits:
        return Check("ray", "fail", f"{found}: it needs {wanted}", f"pip install '{wanted}'")
    return Check("ray", "ok", found)


def _parts(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


def _torch(facts: MachineFacts) -> Check:
    if facts.torch is None:
        return Check("torch", "ok", "PyTorch is not installed")
    if facts.torch_cuda is None:
        fix = "install a CUDA build: https://pytorch.org/get-started/locally"
        return Check("torch", "warn", f"PyTorch {facts.torch} is built for CPUs only, and the site has GPUs", fix)
    return Check("torch", "ok", f"PyTorch {facts.torch} for CUDA {facts.torch_cuda}")


def _open_files(limit: int) -> Check:
    if limit == -1 or limit >= OPEN_FILES:
        return Check("open files", "ok", "as many as Ray may need")
    state: Literal["warn", "fail"] = "warn" if limit >= FEWEST_FILES else "fail"
    sentence = f"a process may open {limit:,} files; with many workers on a node Ray needs {OPEN_FILES:,}"
    return Check("open files", state, sentence, "ask the site for a larger hard limit (ulimit -Hn)")


def _processes(limit: int) -> Check:
    if limit == -1 or limit >= PROCESSES:
        return Check("processes", "ok", "no limit" if limit == -1 else f"{limit:,} processes and threads")
    sentence = f"you may have {limit:,} processes and threads; Ray starts some 30 for each worker"
    return Check("processes", "warn", sentence, "ulimit -u unlimited, or ask for fewer CPUs per node")


def _shared_memory(size: int | None) -> Check:
    if size is None:
        return Check("shared memory", "fail", "there is no /dev/shm", "in a container, bind the machine's own")
    if size < SHARED_MEMORY:
        sentence = f"/dev/shm has {as_size(size)}: data larger than that is kept on disk, and slow"
        return Check("shared memory", "warn", sentence, "in a container, start it with a larger --shm-size")
    return Check("shared memory", "ok", f"/dev/shm has {as_size(size)}")


def _temp_dir(facts: MachineFacts) -> Iterator[Check]:
    where, free = facts.temp_dir, facts.temp_free
    fix = "clear it up, or set temp_dir in the site's profile to another local disk"
    if free is None:
        yield Check("temp dir", "fail", f"{where} is not there", "set temp_dir in the site's profile")
    elif free < TEMP_FREE:
        state: Literal["warn", "fail"] = "warn" if free >= LEAST_TEMP else "fail"
        yield Check("temp dir", state, f"{where} has {as_size(free)} free", fix)
    else:
        yield Check("temp dir", "ok", f"{where} has {as_size(free)} free")
    if len(where) > LONGEST_TEMP_DIR:
        sentence = f"{where} is {len(where)} characters long; with more than {LONGEST_TEMP_DIR} sockets have no room"
        yield Check("socket paths", "fail", sentence, "set temp_dir to a short path, such as /tmp (here: TMPDIR)")


def _environment(facts: MachineFacts) -> Iterator[Check]:
    if facts.proxies:
        names = ", ".join(facts.proxies)
        sentence = f"{names} set; Ray's own traffic is kept from it, and trials do not have it either"
        yield Check("proxies", "ok", sentence)
    if facts.ray_token:
        sentence = (
            f"{facts.ray_token} is there; hpc-tune passes it over, but other Rays that you start turn"
            " authentication on for the head alone"
        )
        yield Check("ray token", "warn", sentence, f"if nothing of yours needs it: rm {facts.ray_token}")


def same_software(here: MachineFacts, there: MachineFacts) -> Check:
    """Compare login and compute node: a run's state is written by one and read by the other."""
    pairs = {
        "hpc-tune": (here.hpc_tune, there.hpc_tune),
        "Ray": (here.ray, there.ray),
        "Python": (here.python.rpartition(".")[0], there.python.rpartition(".")[0]),
    }
    differ = [f"{name} {one} here, {other} there" for name, (one, other) in pairs.items() if one != other]
    if not differ:
        return Check("same software", "ok", f"the same on {here.host} and {there.host}")
    fix = "name one environment in the site's [environment], and use it on the login node, too"
    return Check("same software", "warn", "; ".join(differ), fix)


def place_checks(place: Path) -> Iterator[Check]:
    """Check where runs are kept."""
    existing = existing_part(place)
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Check("runs", "fail", f"{existing} is not yours to write", "choose --runs-dir or $HPC_TUNE_RUNS_DIR")
        return
    found = os.statvfs(existing)
    yield _room("space", f"{as_size(found.f_bavail * found.f_frsize)} free in {existing}",
                found.f_bavail * found.f_frsize, FREE, LEAST_FREE)  # fmt: skip
    if found.f_files:
        yield _room("files", f"{found.f_favail:,} more files fit in {existing}", found.f_favail, INODES, FEWEST_INODES)
    yield from _quota(existing)


def existing_part(place: Path) -> Path:
    """Return a path, or the nearest folder above that is there."""
    return next(parent for parent in (place.absolute(), *place.absolute().parents) if parent.exists())


def _room(name: str, sentence: str, free: int, enough: int, least: int) -> Check:
    state: Literal["ok", "warn", "fail"] = "ok" if free >= enough else "warn" if free >= least else "fail"
    return Check(name, state, sentence, "" if state == "ok" else "remove old runs, or choose another --runs-dir")


def file_system(place: Path) -> str:
    """Return the type of the file system of a path; empty where that cannot be told."""
    target = str(place.resolve())
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    over = [(point, kind) for _, point, kind, *_ in mounts if f"{target}/".startswith(point.rstrip("/") + "/")]
    return max(over, key=lambda each: len(each[0]))[1] if over else ""


def _quota(place: Path) -> Iterator[Check]:
    lustre = file_system(place) == "lustre"
    command = ["lfs", "quota", "-q", "-u", str(os.getuid()), str(place)] if lustre else ["quota", "-w", "-p"]
    if shutil.which(command[0]) is None:
        return
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False).stdout
    except subprocess.TimeoutExpired:
        return
    for path, what, used, limit in parse_quota(said):
        if limit and used > 0.9 * limit:
            state: Literal["warn", "fail"] = "fail" if used >= limit else "warn"
            yield Check("quota", state, f"{used / limit:.0%} of your {what} on {path} are used", "remove old runs")


def parse_quota(text: str) -> Iterator[tuple[str, str, int, int]]:
    """Yield file system, ``KB`` or ``files``, use and limit (0: none) from ``quota -w -p`` and ``lfs quota -q``.

    Both print the file system, then used, soft and hard limit and grace, for blocks and for files; a star marks what
    is over its soft limit.
    """
    for line in text.splitlines():
        fields = line.split()
        numbers = [field.rstrip("*") for field in fields[1:]]
        if len(numbers) >= 7 and all(each.isdigit() for each in (*numbers[:3], *numbers[4:7])):
            for what, (used, soft, hard) in (("KB", numbers[:3]), ("files", numbers[4:7])):
                yield fields[0], what, int(used), int(soft) or int(hard)
