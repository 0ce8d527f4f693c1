"""The sandbox command line: `python -m hpc_tune_slurm.sandbox`; the only module that prints."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .config import DEFAULT_STATE_DIR, SandboxConfig
from .errors import SandboxError
from .packages import install
from .sandbox import Sandbox
from .status import SandboxState, SandboxStatus

__all__ = ["main"]

SETTINGS = {
    "nodes": "How many nodes.",
    "cpus": "CPUs of a node, on paper.",
    "gpus": "Stand-in GPUs of a node.",
    "memory": "MB of a node, on paper.",
    "tmp": "MB that a node's private /tmp may take.",
    "shm": "MB that a node's /dev/shm may take.",
    "cluster_name": "Also names the nodes.",
    "grace_time": "Seconds that a preempted job gets, at least.",
    "kill_wait": "Seconds between SIGTERM and SIGKILL.",
    "slurmd_timeout": "Seconds of silence after which a node is down.",
    "requeue_delay": "Seconds that a requeued job waits.",
    "min_job_age": "Seconds that squeue lists an ended job.",
}


class _Group(click.Group):
    """Prints a SandboxError as a message with its hint, and ends with its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SandboxError as error:
            click.secho(error.message, fg="red", err=True)
            if error.hint:
                click.echo(error.hint, err=True)
            ctx.exit(error.exit_code)


state_dir_option = click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    envvar="HPC_TUNE_SANDBOX",
    default=DEFAULT_STATE_DIR,
    show_default=True,
    help="Where all of it lives; two sandboxes side by side need two.  [env: HPC_TUNE_SANDBOX]",
)


def setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each of SETTINGS, with the default of SandboxConfig."""
    for name, text in reversed(SETTINGS.items()):
        default = getattr(SandboxConfig, name)
        command = click.option(f"--{name.replace('_', '-')}", default=default, show_default=True, help=text)(command)
    return command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run a throw-away Slurm cluster of several nodes on this machine."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)


@main.command()
@setting_options
@click.option("--accounting/--no-accounting", default=False, help="With sacct: needs MariaDB and slurmdbd.")
@click.option(
    "--share", "shared_dirs", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A directory below /tmp that all nodes shall see. Repeatable.",
)  # fmt: skip
@click.option("--conf", "extra_conf", multiple=True, help="A line more for slurm.conf. Repeatable.")
@click.option("--install", "with_install", is_flag=True, help="Get missing Debian packages, without their services.")
@state_dir_option
def up(with_install: bool, **settings: Any) -> None:
    """Start a sandbox and wait until its nodes are idle; nothing changes if it is up."""
    sandbox = Sandbox(SandboxConfig(**{**settings, "state_dir": settings["state_dir"].absolute()}))
    if with_install and (packages := install(sandbox.config.accounting)):
        click.echo(f"Installed: {' '.join(packages)}. Their own services were not started, but a restart may.")
    if not sandbox.up():
        click.echo("It is up already and stays as it is; `down` it first for other settings.")
    _show(sandbox.status())
    click.echo(f"Use it: {_export(sandbox.env())}; sinfo")


@main.command()
@state_dir_option
def down(state_dir: Path) -> None:
    """End all of a sandbox and delete it."""
    found = Sandbox(SandboxConfig(state_dir=state_dir.absolute())).down()
    click.echo(f"Nothing is left of the sandbox in {state_dir}." if found else f"There is no sandbox in {state_dir}.")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@state_dir_option
def status(state_dir: Path, as_json: bool) -> None:
    """Say what runs; the exit code is 0 if the sandbox is up, else 1."""
    found = Sandbox(SandboxConfig(state_dir=state_dir.absolute())).status()
    if as_json:
        click.echo(json.dumps({**asdict(found), "state": found.state.value}, indent=1))
    else:
        _show(found)
    sys.exit(0 if found.state is SandboxState.UP else 1)


@main.command("kill-node")
@click.argument("name")
@state_dir_option
def kill_node(name: str, state_dir: Path) -> None:
    """Let a node fail: everything on it is killed and its cable cut."""
    Sandbox.load(state_dir.absolute()).kill_node(name)


@main.command("heal-node")
@click.argument("name")
@state_dir_option
def heal_node(name: str, state_dir: Path) -> None:
    """Start a killed node again and wait until Slurm uses it."""
    Sandbox.load(state_dir.absolute()).heal_node(name)
    click.echo(f"{name} is back.")


@main.command()
@state_dir_option
def env(state_dir: Path) -> None:
    """Print what a shell must set; for: eval "$(... env)"."""
    click.echo(_export(Sandbox.load(state_dir.absolute()).env()))


@main.command("exec", context_settings={"ignore_unknown_options": True})
@state_dir_option
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(node: str, command: tuple[str, ...], state_dir: Path) -> None:
    """Run COMMAND on NODE, outside of any job: it sees the node's processes, /tmp and network."""
    sys.exit(Sandbox.load(state_dir.absolute()).call(node, command))


def _export(variables: dict[str, str]) -> str:
    return "; ".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


def _show(found: SandboxStatus) -> None:
    click.echo(f"{found.state_dir}: {found.state.value} {found.subnet}".rstrip())
    for name, alive in (found.daemons or {}).items():
        click.echo(f"  {name:<12} {'runs' if alive else 'does not run'}")
    for node in found.nodes:
        runs = "runs" if node.is_alive else "dead"
        click.echo(f"  {node.name:<12} {runs:<6} {node.slurm_state:<12} {node.address}")
