"""The options that stand for keys of ``[allocation]``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

__all__ = ["allocation_options", "allocation_overrides", "job_options", "node_options"]

_NODES = (
    click.option("-N", "--nodes", type=click.IntRange(min=1), help="Nodes."),
    click.option("--min-nodes", type=click.IntRange(min=1), help="Start trials when so many have joined."),
)
_SIZE = (
    click.option("--gpus-per-node", type=click.IntRange(min=0), help="GPUs of each node."),
    click.option("--cpus-per-node", type=click.IntRange(min=1), help="CPUs of each node."),
)
_JOB = (
    click.option("--memory", metavar="SIZE", help="Memory of each node, as in Slurm's --mem."),
    click.option("-t", "--time", metavar="TIME", help='Walltime: "2h", "90m", "02:00:00", "1-12:00:00".'),
    click.option("-p", "--partition", help="Slurm's partition."),
    click.option("-q", "--qos", help="Slurm's quality of service."),
    click.option("-A", "--account", help="Slurm's account."),
)
_NODE_CHOICE = (
    click.option("-C", "--constraint", help="Features that the nodes must have, as in Slurm's --constraint."),
    click.option("-x", "--exclude", metavar="NODES", help="Nodes that the job shall not get."),
)
_SITE = (
    click.option("--site", help="The cluster's profile.  [default: found by the cluster's name]"),
    click.option(
        "--sbatch", "directives", multiple=True, metavar="NAME=VALUE", help="A further sbatch option; repeatable."
    ),
)


def allocation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of an allocation."""
    return _with(command, *_NODES, *_SIZE, *_JOB, *_NODE_CHOICE, *_SITE)


def node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command those of a job with one node."""
    return _with(command, *_SIZE, *_JOB, *_NODE_CHOICE, *_SITE)


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command those of a job that any node can do."""
    return _with(command, *_JOB, *_SITE)


def _with(command: Callable[..., Any], *options: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


def allocation_overrides(*, directives: tuple[str, ...] = (), **given: object) -> tuple[str, ...]:
    """Return the ``--set`` texts that the options on a command line stand for."""
    keys = (f"allocation.{key}={_toml(value)}" for key, value in given.items() if value is not None)
    split = (directive.removeprefix("--").partition("=") for directive in directives)  # without a value: a flag
    return (
        *keys,
        *(f"allocation.sbatch.{name}={_toml(value) if sign else 'true'}" for name, sign, value in split),
    )


def _toml(value: object) -> str:
    """Write a number or a text; TOML spells them as JSON does, but knows no pairs of surrogates."""
    return json.dumps(value, ensure_ascii=False)
