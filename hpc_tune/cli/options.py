"""What several commands share: options, and how they find a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hpc_tune.run import RunDir

__all__ = ["experiments_argument", "find", "json_option", "overrides_option", "runs_dir_option"]


runs_dir_option = click.option(
    "--runs-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="HPC_TUNE_RUNS_DIR",
    default=Path("runs"),
    show_default="./runs, or $HPC_TUNE_RUNS_DIR",
    help="Where the runs live.",
)
experiments_argument = click.argument(
    "experiments", type=click.Path(path_type=Path), nargs=-1, metavar="[EXPERIMENT]..."
)
overrides_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the file; repeatable."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


def find(runs_dir: Path, reference: str | None) -> RunDir:
    """Return the run that the user means; the latest when none is named."""
    from hpc_tune.run import find_run

    return find_run(runs_dir, reference)
