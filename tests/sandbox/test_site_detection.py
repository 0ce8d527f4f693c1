"""Sites on a real Slurm: chosen by the cluster's name, detected, written, used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hpc_tune_slurm.sandbox import Sandbox

from hpc_tune.experiment.allocation import Allocation
from hpc_tune.experiment.spec import TrialResources
from hpc_tune.operations.sites import choose_site, detected_site, list_profiles, show_site, write_site
from hpc_tune.request import check_request, resolve_request
from hpc_tune.site import Site, load_site, own_sites_dir, site_for_cluster
from hpc_tune.slurm.client import Slurm

pytestmark = pytest.mark.slurm


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("SCRATCH", raising=False)
    return own_sites_dir()


@pytest.fixture
def slurm(slurm_sandbox: Sandbox) -> Slurm:
    return Slurm(environ={**os.environ, **slurm_sandbox.env()})


@pytest.fixture
def renamed(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """The sandbox, but no profile knows its name."""
    from hpc_tune.operations import sites

    with monkeypatch.context() as patch:
        patch.setattr(sites, "site_for_cluster", lambda name: None)
        yield slurm


def hpc_tune(sandbox: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("hpc-tune")
    environ = {**os.environ, **sandbox.env()}
    return subprocess.run([program, "site", *arguments], capture_output=True, text=True, env=environ, timeout=60)


def test_the_clusters_name_chooses_the_profile(slurm: Slurm) -> None:
    assert choose_site(None, slurm) == (load_site("iris"), "knows cluster iris")
    assert choose_site("aion", slurm) == (load_site("aion"), "named")
    assert [each.file.name for each in list_profiles(slurm) if each.here] == ["iris"]


def test_a_cluster_is_detected(slurm: Slurm) -> None:
    site = detected_site(slurm)
    assert (site.name, site.cluster_names, site.partition) == ("iris", ["iris"], "gpu")
    assert site.runs_dir is None
    gpu, urgent = site.partitions["gpu"], site.partitions["urgent"]
    assert (gpu.nodes, gpu.max_nodes) == (4, None)
    assert (gpu.cpus_per_node, gpu.gpus_per_node, gpu.gpu_types, gpu.memory_per_node) == (28, 4, ["volta"], 64000)
    assert (gpu.default_time, gpu.max_time) == (7200, 2 * 86400)
    assert gpu.features == ["volta", "volta16"]
    assert gpu.qos == []
    assert gpu.preemptible
    assert not urgent.preemptible


def test_a_cluster_without_gpus_is_detected(accounting_sandbox: Sandbox) -> None:
    site = detected_site(Slurm(environ={**os.environ, **accounting_sandbox.env()}))
    gpu = site.partitions["gpu"]
    assert (gpu.nodes, gpu.cpus_per_node, gpu.gpus_per_node, gpu.gpu_types) == (2, 3, 0, [])


def test_changed_limits_are_detected(slurm: Slurm, slurm_sandbox: Sandbox) -> None:
    update = ["scontrol", "update", "PartitionName=gpu"]
    try:
        slurm_sandbox.run([*update, "MaxNodes=2", "AllowQos=normal,high"])
        slurm_sandbox.run(["scontrol", "update", "PartitionName=urgent", "State=INACTIVE"])
        site = detected_site(slurm)
    finally:
        slurm_sandbox.run([*update, "MaxNodes=UNLIMITED", "AllowQos=ALL"])
        slurm_sandbox.run(["scontrol", "update", "PartitionName=urgent", "State=UP"])
    assert (site.partitions["gpu"].max_nodes, site.partitions["gpu"].qos) == (2, ["normal", "high"])
    assert list(site.partitions) == ["gpu"]


def test_where_no_profile_matches_the_cluster_speaks_for_itself(renamed: Slurm) -> None:
    site, how = choose_site(None, renamed)
    assert site == detected_site(renamed)
    assert how == "detected: no profile knows cluster iris"
    assert show_site(None, renamed) == (site, how)
    trial = TrialResources(cpus=7, gpus=1)
    request = resolve_request(Allocation(nodes=5), site, trial, {})
    assert (request.cpus_per_node, request.gpus_per_node) == (28, 4)
    assert [str(each) for each in check_request(request, site, trial)] == [
        "allocation.nodes: partition gpu has 4 nodes; use --nodes 4"
    ]


def test_a_written_profile_is_the_one_for_the_cluster(slurm: Slurm, own: Path) -> None:
    site = detected_site(slurm)
    assert write_site(site) == own / "iris.toml"
    assert site_for_cluster("iris") == site
    assert choose_site(None, slurm)[0] == site


def test_the_commands(slurm_sandbox: Sandbox, own: Path) -> None:
    assert "* iris" in hpc_tune(slurm_sandbox, "list").stdout
    assert "knows cluster iris" in hpc_tune(slurm_sandbox, "show").stdout.splitlines()[0]
    shown = hpc_tune(slurm_sandbox, "detect")
    assert "[partitions.urgent]" in shown.stdout
    as_json = json.loads(hpc_tune(slurm_sandbox, "detect", "--json").stdout)
    assert as_json["schema"] == 1
    written = hpc_tune(slurm_sandbox, "detect", "--write")
    assert str(own / "iris.toml") in written.stdout
    assert load_site("iris") == Site.model_validate(as_json["site"])
    again = hpc_tune(slurm_sandbox, "detect", "--write")
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert hpc_tune(slurm_sandbox, "detect", "--write", "--force").returncode == 0
    assert "yours" in hpc_tune(slurm_sandbox, "list").stdout
