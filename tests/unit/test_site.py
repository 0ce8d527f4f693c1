"""Site profiles: the shipped ones, the user's own, and what is said about wrong ones."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.errors import SiteError, UsageError
from hpc_tune.site import Site, SiteFile, as_toml, list_sites, load_site, own_sites_dir, site_for_cluster


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for profiles of this user."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = own_sites_dir()
    folder.mkdir(parents=True)
    return folder


def faults(own: Path, text: str) -> dict[str, str]:
    path = own / "mine.toml"
    path.write_text(text)
    with pytest.raises(SiteError) as caught:
        load_site("mine")
    assert caught.value.exit_code == 2
    assert str(path) in caught.value.message
    return {fault.key: str(fault) for fault in caught.value.faults}


# ------------------------------------------------------------------------------- shipped


def test_the_shipped_profiles() -> None:
    assert [file.name for file in list_sites()] == ["aion", "generic", "iris"]
    assert not any(file.own for file in list_sites())
    for file in list_sites():
        site = file.load()
        assert site.name == file.name
        assert site.description
        assert Site.model_validate(tomllib.loads(as_toml(site))) == site


def test_iris() -> None:
    gpu = load_site("iris").partitions["gpu"]
    assert (gpu.max_nodes, gpu.gpus_per_node, gpu.cpus_per_node) == (4, 4, 28)
    assert (gpu.default_time, gpu.max_time) == (7200, 48 * 3600)
    assert load_site("iris").cpus_per_gpu == 7
    assert {"normal", "low", "high", "urgent", "besteffort", "iris-gpu-long"} <= set(gpu.qos)
    assert {"volta16", "volta32"} <= set(gpu.features)
    assert load_site("iris").qos_limits["besteffort"].preemptible


def test_generic_knows_nothing() -> None:
    assert load_site("generic") == Site(name="generic", description=load_site("generic").description)


def test_a_cluster_finds_its_profile() -> None:
    assert site_for_cluster("iris") == load_site("iris")
    assert site_for_cluster("aion") == load_site("aion")
    assert site_for_cluster("elsewhere") is None


def test_the_readmes_profile_works(own: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    text = readme.partition("\n## Sites\n")[2].partition("```toml\n")[2].partition("```")[0]
    (own / "mine.toml").write_text(text)
    assert load_site("mine").partitions["gpu"].max_nodes == 4
    assert site_for_cluster("mycluster") == load_site("mine")


# ------------------------------------------------------------------------------- own


def test_ones_own_beats_a_shipped_one(own: Path) -> None:
    (own / "iris.toml").write_text('partition = "batch"\ncluster_names = ["iris"]')
    assert load_site("iris").partition == "batch"
    assert [file.own for file in list_sites() if file.name == "iris"] == [True]
    assert site_for_cluster("iris") == load_site("iris")


def test_ones_own_by_another_name_beats_a_shipped_one_for_a_cluster(own: Path) -> None:
    (own / "my-iris.toml").write_text('cluster_names = ["iris"]')
    found = site_for_cluster("iris")
    assert found is not None
    assert found.name == "my-iris"


def test_the_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert own_sites_dir() == tmp_path / ".config" / "hpc-tune" / "sites"
    assert len(list_sites()) == 3


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError) as caught:
        load_site("irs")
    assert caught.value.message == "there is no site 'irs'; did you mean 'iris'?"
    assert "hpc-tune site list" in str(caught.value.hint)


def test_all_faults_of_a_profile_come_at_once(own: Path) -> None:
    found = faults(
        own,
        """
        temp_dir = "tmp"
        interface = "ib0; rm"
        next_attempt = "perhaps"
        [sbatch]
        nodes = 3
        [partitions.gpu]
        max_node = 4
        max_time = "long"
        [environment]
        venv = "$NOT_SET_ANYWHERE/venv"
        conde = "x"
        """,
    )
    assert set(found) == {
        "temp_dir", "interface", "next_attempt", "sbatch.nodes", "partitions.gpu.max_node", "partitions.gpu.max_time",
        "environment.venv", "environment.conde",
    }  # fmt: skip
    assert "did you mean 'max_nodes'?" in found["partitions.gpu.max_node"]
    assert "did you mean 'conda'?" in found["environment.conde"]
    assert "$NOT_SET_ANYWHERE is not set here" in found["environment.venv"]
    assert "'successor', 'requeue' or 'none'" in found["next_attempt"]


@pytest.mark.parametrize("text", ["name = ", "\x00"])
def test_what_is_no_toml(own: Path, text: str) -> None:
    assert "is not valid TOML" in faults(own, text)[""]


def test_what_cannot_be_read(own: Path) -> None:
    (own / "mine.toml").write_bytes(b'description = "\xff"')
    with pytest.raises(SiteError, match="cannot be read"):
        load_site("mine")


def test_software_comes_from_one_place(own: Path) -> None:
    found = faults(own, 'environment = { venv = "/v", container = "/c.sif" }')
    assert "venv and container exclude each other" in found["environment"]


def test_names_of_variables(own: Path) -> None:
    found = faults(own, 'environment.variables = { "A-B" = "1", OK = "2", "X=1; rm" = "3" }')
    assert set(found) == {"environment.variables.A-B", "environment.variables.X=1; rm"}


def test_paths_are_expanded_since_the_script_quotes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a")
    monkeypatch.setenv("PROJECT", "/project/p")
    environment = {"venv": "~/venv", "python": "${PROJECT}/bin/python"}
    site = Site.model_validate({"name": "x", "environment": environment})
    assert (site.environment.venv, site.environment.python) == ("/home/a/venv", "/project/p/bin/python")
    named = Site.model_validate({"name": "x", "environment": {"conda": "search"}})
    assert named.environment.conda == "search"


# ------------------------------------------------------------------------------- runs_dir


def test_where_runs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a")
    site = load_site("iris")
    assert site.runs_path({"SCRATCH": "/scratch/a"}) == Path("/scratch/a/hpc-tune/runs")
    assert Site(name="x", runs_dir="~/${X}/runs").runs_path({"X": "y"}) == Path("/home/a/y/runs")
    assert Site(name="x").runs_path({}) is None


@pytest.mark.parametrize("environ", [{}, {"SCRATCH": ""}])
def test_an_unset_variable_leaves_it_open_and_is_named(environ: dict[str, str]) -> None:
    assert load_site("iris").runs_path(environ) is None
    assert load_site("iris").unset_variables(environ) == ["$SCRATCH"]


# ------------------------------------------------------------------------------- as TOML


def test_a_profile_survives_being_written() -> None:
    site = Site.model_validate({
        "name": "x", "description": 'with "quotes", \\ and ü',
        "sbatch": {"mail-type": "END", "exclusive": True, "nice": 5},
        "environment": {"setup": ["a\nb", "c # d"], "variables": {"A": "1 = 2"}, "modules": ["lang/Python"]},
        "partitions": {"long.one": {"max_time": "14-00:00:00", "features": ["a", "b"]}, "empty": {}},
        "qos_limits": {"q": {"max_time": 90, "preemptible": True}},
    })  # fmt: skip
    text = as_toml(site)
    assert Site.model_validate(tomllib.loads(text)) == site
    assert 'max_time = "336:00:00"' in text
    assert '[partitions."long.one"]' in text
    assert "temp_dir" not in text  # what is at its default


def test_a_file_names_its_site(tmp_path: Path) -> None:
    path = tmp_path / "here.toml"
    path.write_text("")
    assert SiteFile("here", path, own=True).load().name == "here"


def test_models_cannot_be_changed() -> None:
    site: Any = load_site("iris")
    with pytest.raises(ValueError, match="frozen"):
        site.partition = "x"
