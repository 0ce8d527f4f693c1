"""Which site this is: a profile that was named, one that knows the cluster, or the cluster's own word."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_tune.durable import write_text
from hpc_tune.errors import SiteError, SlurmError, UsageError
from hpc_tune.site import Partition, Site, SiteFile, as_toml, list_sites, load_site, own_sites_dir, site_for_cluster
from hpc_tune.slurm.client import Slurm
from hpc_tune.slurm.commands import ClusterConfig, NodeGroup, PartitionInfo

__all__ = ["ListedSite", "choose_site", "detected_site", "list_profiles", "show_site", "write_site"]

GENERIC = "generic"


@dataclass(frozen=True)
class ListedSite:
    """A profile as a list shows it."""

    file: SiteFile
    site: Site | None
    """None if the file is wrong."""
    problem: str | None = None
    here: bool = False
    """Whether it is the one for the cluster at hand."""


def choose_site(name: str | None, slurm: Slurm | None) -> tuple[Site, str]:
    """Return the site to use, and how it was found, for people.

    Args:
        name: the profile that the user named; None: find out.
        slurm: whom to ask which cluster this is; None: nobody.

    Raises:
        UsageError: if there is no such profile.
        SiteError: if a profile is wrong.
        SlurmError: if Slurm is here but does not answer.
    """
    if name is not None:
        return load_site(name), "named"
    if slurm is None or not slurm.is_installed:
        return load_site(GENERIC), "there is no Slurm here"
    config = slurm.config()
    if (known := site_for_cluster(config.cluster_name)) is not None:
        return known, f"knows cluster {config.cluster_name}"
    return _detected(config, slurm), f"detected: no profile knows cluster {config.cluster_name}"


def detected_site(slurm: Slurm) -> Site:
    """Build a profile from what the cluster at hand says of itself: three calls, whatever its size."""
    return _detected(slurm.config(), slurm)


def _detected(config: ClusterConfig, slurm: Slurm) -> Site:
    found = [(limits, groups) for limits, groups in slurm.partitions() if limits.is_up]
    highest = max((limits.tier for limits, _ in found), default=1)
    partitions = {
        limits.name: _partition(
            limits, groups,
            preemptible=config.preempts_by_partition and limits.tier < highest and limits.preempt_mode != "OFF",
        )
        for limits, groups in found
    }  # fmt: skip
    return Site(
        name=re.sub(r"[^A-Za-z0-9._-]", "-", config.cluster_name).lstrip("._-") or "cluster",
        description=f"detected on cluster {config.cluster_name}, Slurm {config.version}",
        cluster_names=[config.cluster_name],
        partition=next((limits.name for limits, _ in found if limits.is_default), None),
        runs_dir="$SCRATCH/hpc-tune/runs" if os.environ.get("SCRATCH") else None,
        partitions=partitions,
    )


def _partition(limits: PartitionInfo, groups: Sequence[NodeGroup], *, preemptible: bool) -> Partition:
    """Describe a partition. Where its nodes differ in CPUs, no number is true, and nothing is checked."""
    cpus = {group.cpus for group in groups}
    return Partition(
        nodes=limits.nodes or None,
        max_nodes=limits.max_nodes,
        max_time=limits.max_time or None,
        default_time=limits.default_time or None,
        cpus_per_node=cpus.pop() or None if len(cpus) == 1 else None,
        gpus_per_node=max((group.gpus for group in groups), default=None),
        gpu_types=sorted({kind for group in groups for kind in group.gpu_types}),
        memory_per_node=max((group.memory for group in groups), default=0) or None,
        features=sorted({feature for group in groups for feature in group.features}),
        qos=list(limits.qos),
        preemptible=preemptible,
    )


def list_profiles(slurm: Slurm) -> list[ListedSite]:
    """Return all profiles, the wrong ones too; a Slurm that is missing or silent only leaves open which is here."""
    listed = [_listed(file) for file in list_sites()]
    try:
        cluster = slurm.config().cluster_name if slurm.is_installed else None
    except SlurmError:
        cluster = None
    # the user's own profile comes first, as in site_for_cluster
    ordered = sorted(listed, key=lambda each: not each.file.own)
    here = next((each for each in ordered if each.site and cluster in each.site.cluster_names), None)
    return [ListedSite(each.file, each.site, each.problem, here=each is here) for each in listed]


def _listed(file: SiteFile) -> ListedSite:
    try:
        return ListedSite(file, file.load())
    except SiteError as error:
        return ListedSite(file, None, error.message)


def show_site(name: str | None, slurm: Slurm) -> tuple[Site, str]:
    """Return a profile, the one for the cluster at hand unless named, and where it comes from.

    Raises:
        UsageError, SiteError, SlurmError: as ``choose_site``.
    """
    site, how = choose_site(name, slurm)
    paths = {file.name: file.path for file in list_sites()}
    if how.startswith("detected"):
        return site, how
    return site, f"{paths[site.name]}" + ("" if name is not None else f" ({how})")


def write_site(site: Site, *, force: bool = False) -> Path:
    """Write a profile to the user's own ones; return the file.

    Raises:
        UsageError: if there is one of that name already.
    """
    path = own_sites_dir() / f"{site.name}.toml"
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", hint="to replace it: hpc-tune site detect --write --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, as_toml(site))
    return path
