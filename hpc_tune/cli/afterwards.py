"""Commands that go on with what a search has found: score it, train it again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from hpc_tune.cli.allocation import allocation_options, allocation_overrides, node_options
from hpc_tune.cli.followups import after_option, carry_out, find_all, wait_option
from hpc_tune.cli.local import finish
from hpc_tune.cli.options import json_option, runs_dir_option
from hpc_tune.errors import SlurmError

__all__ = ["evaluate", "replay"]

here_option = click.option("--here", is_flag=True, help="In this process, also where there is Slurm.")


@contextmanager
def _or_here() -> Iterator[None]:
    """Say of what Slurm does not do that it can be done here."""
    try:
        yield
    except SlurmError as error:
        error.hint = (
            f"{error.hint}; or do it on this machine: --here" if error.hint else "do it on this machine: --here"
        )
        raise


@click.command()
@click.argument("run", required=False)
@click.option("--trial", metavar="TRIAL", help="Another trial than the best: an id, the beginning of one, or a number.")
@click.option(
    "--function",
    metavar="FILE.py:NAME",
    help="The function that scores, in the run's copy of the code or else here.  [default: as the experiment says]",
)
@here_option
@after_option
@wait_option
@node_options
@runs_dir_option
@json_option
def evaluate(
    run: str | None,
    trial: str | None,
    function: str | None,
    here: bool,
    after: tuple[str, ...],
    waits: bool | None,
    runs_dir: Path,
    as_json: bool,
    **allocation: Any,
) -> None:
    """Score the best checkpoint of RUN on held-out data.

    Calls evaluate(config, checkpoint), or with the experiment's data as a third argument, which the experiment names
    as evaluate = "train.py:evaluate" and which returns a dict of metrics. On Slurm it is a job of its own with what
    one trial needs; elsewhere a process of this machine. "hpc-tune status" shows the result, too.

    \b
    hpc-tune evaluate
    hpc-tune evaluate --after my-search --partition gpu --time 20m
    hpc-tune evaluate my-search --trial 3 --function score.py:on_test_set --here
    """  # noqa: D301 - click's mark for lines to leave as they are
    from hpc_tune.operations.tasks import evaluate_task

    (found, *_), before = find_all(runs_dir, [run] if run else [], after)
    task = evaluate_task(found, trial=trial, function=function, after=before)
    with _or_here():
        carry_out(task, here=here, waits=waits, as_json=as_json, allocation=allocation)


@click.command()
@click.argument("run", required=False)
@click.argument("trial", required=False)
@here_option
@click.option("--cpus", type=click.IntRange(min=1), help="On this machine: CPUs for the trial.  [default: all]")
@click.option("--gpus", type=click.IntRange(min=0), help="On this machine: GPUs for the trial.  [default: all]")
@after_option
@allocation_options
@runs_dir_option
@json_option
def replay(
    run: str | None,
    trial: str | None,
    here: bool,
    cpus: int | None,
    gpus: int | None,
    after: tuple[str, ...],
    runs_dir: Path,
    as_json: bool,
    **allocation: Any,
) -> None:
    """Retrain from scratch along the hyperparameters of a TRIAL of a population (PBT).

    Without TRIAL: the best one. The replay is a run of its own, called like RUN with -replay- and the trial, with the
    same conditions to stop: status, report, resume and the others work on it. On Slurm it is submitted as runs are,
    with one node and what the trial needs.

    \b
    hpc-tune replay my-pbt 3
    hpc-tune replay --after my-pbt --time 2h
    """  # noqa: D301
    from hpc_tune import render
    from hpc_tune.operations.replay import replay_here, replay_on_slurm
    from hpc_tune.operations.tasks import replay_task
    from hpc_tune.slurm.client import Slurm

    (found, *_), before = find_all(runs_dir, [run] if run else [], after)
    changes, slurm = allocation_overrides(**allocation), Slurm()
    on_slurm = slurm.is_installed and not here
    if changes and not on_slurm:
        raise click.UsageError("options of an allocation are for Slurm: this replay runs on this machine.")
    if on_slurm and (cpus is not None or gpus is not None):
        raise click.UsageError("--cpus and --gpus are for --here; on Slurm say --cpus-per-node, --gpus-per-node.")
    if before:
        task = replay_task(found, trial=trial, overrides=changes, after=before)
        carry_out(task, here=here, waits=None, as_json=as_json, allocation={})
    elif on_slurm:
        with _or_here():
            sent = replay_on_slurm(found, trial, overrides=changes, slurm=slurm)
        render.submitted([sent], as_json=as_json)
    else:
        watcher = render.watcher(as_json=as_json)
        with watcher:
            result = replay_here(found, trial, cpus=cpus, gpus=gpus, watcher=watcher)
        finish(result, as_json=as_json)
