"""The command line. Each command calls one operation and has its result rendered."""

from __future__ import annotations

from typing import Any

import click

from hpc_tune import __version__
from hpc_tune.cli import afterwards, doctor, jobs, local, results, sites, submit
from hpc_tune.errors import HpcTuneError

__all__ = ["cli", "main"]


class _Commands(click.Group):
    """One place where errors become messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HpcTuneError as failure:
            from hpc_tune import render

            render.error(failure)
            ctx.exit(failure.exit_code)
        except BrokenPipeError:  # the reader of a pipe has left; click ends quietly
            raise
        except OSError as failure:
            where = f"{failure.filename}: " if failure.filename else ""
            click.echo(f"error: {where}{failure.strerror or failure}", err=True)
            ctx.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="hpc-tune")
def cli() -> None:
    """Hyperparameter searches with Ray Tune: one experiment file, one command, every result in a CSV.

    EXPERIMENT is a .toml, .json or .py file. RUN is a directory, a run's name, the beginning of one, or left out:
    the latest run.

    Exit codes: 0 done, 1 failed or interrupted, 2 usage or a wrong experiment file, 3 run not found or busy,
    4 Slurm refused or is missing, 5 all trials failed.
    """


for command in (
    local.run,
    submit.submit,
    jobs.list_runs,
    jobs.status,
    jobs.logs,
    jobs.cancel,
    local.resume,
    local.collect,
    results.report,
    results.best,
    afterwards.evaluate,
    afterwards.replay,
    sites.site,
    doctor.doctor,
    submit.conclude,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; the entry point of ``hpc-tune``."""
    cli(prog_name="hpc-tune")
