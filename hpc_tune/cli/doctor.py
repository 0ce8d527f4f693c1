"""The command that looks for what is wrong."""

from __future__ import annotations

from pathlib import Path

import click

from hpc_tune.cli.options import find, json_option

__all__ = ["doctor"]


@click.command()
@click.argument("run", required=False)
@click.option("--job", is_flag=True, help="Also look at a compute node, by a job of a few seconds.")
@click.option(
    "--wait",
    type=click.FloatRange(min=1),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="With --job: how long to wait for a node.",
)
@click.option(
    "--runs-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="HPC_TUNE_RUNS_DIR",
    show_default="as for submit",
    help="Where the runs live.",
)
@click.option(
    "--facts",
    type=(str, click.Path(path_type=Path)),
    metavar="TEMP_DIR FILE",
    help="Print what this machine has, and what it reads in FILE: what --job asks a node.",
)
@json_option
def doctor(
    run: str | None,
    job: bool,
    wait: float,
    runs_dir: Path | None,
    facts: tuple[str, Path] | None,
    as_json: bool,
) -> None:
    """Look for what would make a search fail here; or say why RUN failed.

    Without RUN: Slurm, the site's profile, versions, limits, room for runs. The exit code is 1 if anything would make
    a search fail. With RUN: the likeliest cause, from its records and logs, and what helps.

    \b
    hpc-tune doctor --job
    hpc-tune doctor my-search
    """  # noqa: D301 - click takes the backspace for "leave these lines as they are"
    from hpc_tune import render
    from hpc_tune.operations.diagnosis import diagnose
    from hpc_tune.operations.doctor import preflight
    from hpc_tune.operations.machine_facts import read_facts

    if facts is not None:
        render.facts(read_facts(*facts))
        return
    if run is not None:
        if job:
            raise click.UsageError("--job goes without RUN")
        render.diagnosis(diagnose(find(runs_dir or Path("runs"), run)), as_json=as_json)
        return
    found = preflight(runs_dir, job=job, patience=wait)
    render.preflight(found, as_json=as_json)
    if not found.is_ready:
        raise SystemExit(1)
