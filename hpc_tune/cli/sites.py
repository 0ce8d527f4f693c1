"""Commands about clusters: what hpc-tune knows of them."""

from __future__ import annotations

import click

from hpc_tune.cli.options import json_option

__all__ = ["site"]


@click.group()
def site() -> None:
    """Profiles of clusters: limits, defaults, environment.

    A profile is one TOML file, shipped or your own in ~/.config/hpc-tune/sites; your own beats a shipped one of the
    same name. It is chosen with --site, by the experiment, or by the cluster's name.
    """


@site.command("list")
@json_option
def list_sites(as_json: bool) -> None:
    """List all profiles, and mark the one for this cluster."""
    from hpc_tune import render
    from hpc_tune.operations.sites import list_profiles
    from hpc_tune.slurm.client import Slurm

    render.site_list(list_profiles(Slurm()), as_json=as_json)


@site.command()
@click.argument("name", required=False)
@json_option
def show(name: str | None, as_json: bool) -> None:
    """Show the profile NAME as TOML, or the one that jobs from here would use.

    \b
    hpc-tune site show iris > ~/.config/hpc-tune/sites/iris.toml     # a copy of your own, to edit
    """  # noqa: D301 - click's mark for lines to leave as they are
    from hpc_tune import render
    from hpc_tune.operations.sites import show_site
    from hpc_tune.slurm.client import Slurm

    shown, origin = show_site(name, Slurm())
    render.site(shown, origin, as_json=as_json)


@site.command()
@click.option("--write", is_flag=True, help="Write it to your own profiles instead of printing it.")
@click.option("--force", is_flag=True, help="With --write: replace a profile that is there.")
@json_option
def detect(write: bool, force: bool, as_json: bool) -> None:
    """Build a profile from what this cluster says of itself: partitions, limits, CPUs, GPUs.

    Environment, runs_dir and the CPUs that go with a GPU are for you to add.
    """
    from hpc_tune import render
    from hpc_tune.operations.sites import detected_site, write_site
    from hpc_tune.slurm.client import Slurm

    if force and not write:
        raise click.UsageError("--force goes with --write")
    found = detected_site(Slurm())
    if write:
        render.site_written(found, write_site(found, force=force), as_json=as_json)
    else:
        render.site(found, found.description, as_json=as_json)
