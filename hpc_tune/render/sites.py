"""How site profiles look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpc_tune.render.text import to_json

if TYPE_CHECKING:
    from hpc_tune.operations.sites import ListedSite
    from hpc_tune.site import Site

__all__ = ["site", "site_list", "site_written"]


def site_list(listed: Sequence[ListedSite], *, as_json: bool) -> None:
    """Show all profiles, a line each; the one for the cluster at hand has a mark."""
    if as_json:
        click.echo(to_json({"sites": [_listed_record(each) for each in listed]}))
        return
    width = max((len(each.file.name) for each in listed), default=0)
    for each in listed:
        mark, owner = "*" if each.here else " ", "yours" if each.file.own else "shipped"
        what = each.problem or (each.site.description if each.site else "")
        click.echo(f"{mark} {each.file.name:<{width}}  {owner:<7}  {what}".rstrip())
    if any(each.here for each in listed):
        click.echo("* this cluster")


def _listed_record(listed: ListedSite) -> dict[str, Any]:
    return {
        "name": listed.file.name,
        "path": str(listed.file.path),
        "own": listed.file.own,
        "here": listed.here,
        "description": listed.site.description if listed.site else None,
        "cluster_names": listed.site.cluster_names if listed.site else None,
        "problem": listed.problem,
    }


def site(shown: Site, origin: str, *, as_json: bool) -> None:
    """Show a profile as its file would hold it, so that it can be written into one."""
    from hpc_tune.site import as_toml  # pydantic takes a while to import

    if as_json:
        click.echo(to_json({"origin": origin, "site": shown.model_dump()}))
        return
    click.echo(f"# {origin}")
    click.echo(as_toml(shown), nl=False)


def site_written(shown: Site, path: Path, *, as_json: bool) -> None:
    """Say where a profile was written."""
    if as_json:
        click.echo(to_json({"origin": str(path), "site": shown.model_dump()}))
        return
    click.echo(f"wrote {path}; it is used for jobs on cluster {', '.join(shown.cluster_names)}")
