"""``hpc-tune site`` where there is no Slurm, and which site a submission takes."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hpc_tune.cli import cli
from hpc_tune.errors import UsageError
from hpc_tune.operations.sites import choose_site, list_profiles, show_site, write_site
from hpc_tune.site import Site, load_site, own_sites_dir
from hpc_tune.slurm.client import Slurm

NOWHERE = Slurm(environ={"PATH": "/nonexistent"})


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for profiles of this user, and no Slurm."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PATH", "/nonexistent")
    return own_sites_dir()


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, ["site", *arguments], prog_name="hpc-tune")
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def test_list(own: Path) -> None:
    write_site(Site(name="mine", description="my cluster", cluster_names=["c"]))
    lines = call("list").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["aion", "shipped"], ["generic", "shipped"], ["iris", "shipped"], ["mine", "yours"],
    ]  # fmt: skip
    assert lines[-1].endswith("my cluster")


def test_list_as_json() -> None:
    sites = json.loads(call("list", "--json").stdout)["sites"]
    assert [set(each) for each in sites] == [
        {"name", "path", "own", "here", "description", "cluster_names", "problem"}
    ] * 3  # fmt: skip
    assert not any(each["here"] or each["own"] for each in sites)


def test_a_wrong_profile_is_listed_with_its_faults(own: Path) -> None:
    own.mkdir(parents=True)
    (own / "mine.toml").write_text("partitoin = 1")
    result = call("list")
    assert result.exit_code == 0
    assert "did you mean 'partition'?" in result.stdout
    (mine,) = [each for each in list_profiles(NOWHERE) if each.file.name == "mine"]
    assert mine.site is None


def test_show_is_the_profile_as_a_file(own: Path) -> None:
    text = call("show", "iris").stdout
    assert text.splitlines()[0].endswith("iris.toml")
    assert Site.model_validate(tomllib.loads(text)) == load_site("iris")
    shown = json.loads(call("show", "iris", "--json").stdout)
    assert shown["site"]["partitions"]["gpu"]["max_nodes"] == 4
    assert shown["origin"].endswith("iris.toml")


def test_show_without_slurm_is_the_generic_one() -> None:
    site, origin = show_site(None, NOWHERE)
    assert site.name == "generic"
    assert "there is no Slurm here" in origin


def test_show_of_an_unknown_one() -> None:
    result = call("show", "aio")
    assert result.exit_code == 2
    assert "did you mean 'aion'?" in result.stderr


def test_detect_needs_slurm() -> None:
    result = call("detect")
    assert result.exit_code == 4
    assert "scontrol is not on this machine" in result.stderr
    assert call("detect", "--force").exit_code == 2


def test_written_profiles_are_not_overwritten(own: Path) -> None:
    site = Site(name="mine", cluster_names=["c"])
    assert write_site(site) == own / "mine.toml"
    assert load_site("mine") == site
    with pytest.raises(UsageError, match="is there already"):
        write_site(site)
    changed = site.model_copy(update={"partition": "p"})
    write_site(changed, force=True)
    assert load_site("mine") == changed


@pytest.mark.parametrize("slurm", [None, NOWHERE])
def test_without_slurm_a_site_is_named_or_generic(slurm: Slurm | None) -> None:
    assert choose_site(None, slurm) == (load_site("generic"), "there is no Slurm here")
    assert choose_site("iris", slurm) == (load_site("iris"), "named")
