"""Commands that show what a search has found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hpc_tune.cli.followups import carry_out, find_all, follow_up_options, is_job
from hpc_tune.cli.options import find, json_option, runs_dir_option

__all__ = ["best", "report"]


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to.  [default: report.html in the run's directory, for several runs in the current one]",
)
@click.option(
    "--png",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the plots as PNG files, too; needs kaleido and a Chrome or Chromium.",
)
@follow_up_options
@runs_dir_option
@json_option
def report(
    runs: tuple[str, ...],
    output: Path | None,
    png: Path | None,
    job: bool,
    after: tuple[str, ...],
    waits: bool | None,
    runs_dir: Path,
    as_json: bool,
    **allocation: Any,
) -> None:
    """Write one HTML page about RUN, or one that compares several, also of live ones.

    The answer, learning curves, hyperparameters and their importance, what the trial scheduler did, how the
    allocation was used, failures. The page opens anywhere, without internet. The tables are written anew beside it.

    \b
    hpc-tune report
    hpc-tune report my-asha my-pbt --output compared.html
    hpc-tune report --after my-search
    """  # noqa: D301 - click's mark for lines to leave as they are
    from hpc_tune import render
    from hpc_tune.operations.report import report

    found, before = find_all(runs_dir, runs, after)
    if is_job(job, before, waits, allocation):
        from hpc_tune.operations.tasks import report_task

        task = report_task(found, output=output, png=png, after=before)
        carry_out(task, here=False, waits=waits, as_json=as_json, allocation=allocation)
        return
    render.reported(report(found, output=output, png=png), as_json=as_json)


@click.command()
@click.argument("run", required=False)
@click.option("--toml", "as_toml", is_flag=True, help="Print the config alone, as [space] of an experiment file.")
@click.option(
    "--export",
    "target",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Copy checkpoint, config and provenance to a .tar or .tar.gz file, or a directory.",
)
@runs_dir_option
@json_option
def best(run: str | None, as_toml: bool, target: Path | None, runs_dir: Path, as_json: bool) -> None:
    """Show the best trial of RUN: its value, its config, its best checkpoint.

    \b
    hpc-tune best
    hpc-tune best my-search --toml >> final.toml
    hpc-tune best my-search --export best.tar
    """  # noqa: D301
    from hpc_tune import render
    from hpc_tune.operations.best import best, export

    if as_json and as_toml:
        raise click.UsageError("--json and --toml are two forms of the same: choose one")
    found = best(find(runs_dir, run))
    if target is not None:
        export(found, target)
    if as_toml:
        click.echo(found.toml, nl=False)
    else:
        render.best(found, exported=target, as_json=as_json)
