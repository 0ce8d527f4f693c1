"""The job script: what Slurm runs, as text. Nothing is looked up here, so the same request gives the same bytes."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from hpc_tune.errors import RunError
from hpc_tune.experiment.duration import format_clock
from hpc_tune.request import JobRequest
from hpc_tune.site import Environment, Site

__all__ = ["environment_script", "gres", "render_job_script"]

PATIENCE = 0.5
"""Share of the time before the walltime's end that trials get to save; the rest is for the state of the search, the
tables, and Slurm's own lateness."""


def render_job_script(request: JobRequest, site: Site, *, run: Path, python: str, retry_errors: bool = False) -> str:
    """Return the script of a run.

    Args:
        request: what Slurm is asked for.
        site: the environment on the nodes.
        run: the run's directory, absolute.
        python: the interpreter to use where the site names none.
        retry_errors: whether the next attempt starts failed trials again.

    Raises:
        RunError: if the directory's path cannot be written in a script.
    """
    if not str(run).isprintable() or "\\" in str(run):  # a backslash keeps Slurm from filling in the log's %j
        raise RunError(f"the path {str(run)!r} cannot be written in a job script", hint="choose another --runs-dir")
    return _rendered(
        "job.sbatch.j2",
        name=run.name,
        request=request,
        run=str(run),
        setup=environment_script(site.environment, python=python).rstrip("\n"),
        directives=list(_directives(request, run)),
        srun=list(_srun(request)),
        agent=list(_agent(request, site, retry_errors)),
        next_attempt=site.next_attempt,
    )


def environment_script(environment: Environment, *, python: str) -> str:
    """Return the lines that set up the software of a job; then ``"${python[@]}"`` starts Python.

    Args:
        environment: the site's.
        python: the interpreter to use where the site names none.
    """
    return _rendered("environment.sh.j2", environment=environment, python=_python(environment, python))


def _rendered(template: str, **values: Any) -> str:
    from jinja2 import Environment as Templates
    from jinja2 import StrictUndefined

    templates = Templates(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    templates.filters["sh"] = shlex.quote
    text = resources.files("hpc_tune_slurm").joinpath(template).read_text(encoding="utf-8")
    return templates.from_string(text).render(values)


def _directives(request: JobRequest, run: Path) -> Iterator[str]:
    """Yield the options of sbatch, each with its value quoted as sbatch reads it."""
    options: dict[str, str | int | None] = {
        "job-name": run.name,
        "nodes": request.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": request.cpus_per_node,
        "gres": gres(request),
        "mem": request.memory,
        "time": None if request.time is None else format_clock(math.ceil(request.time)),  # zero would be no limit
        "partition": request.partition,
        "qos": request.qos,
        "account": request.account,
        "constraint": request.constraint,
        "exclude": request.exclude,
        "signal": f"B:USR1@{math.ceil(request.grace)}",
        "output": f"{run}/jobs/".replace("%", "%%") + "%j.log",
    }
    for name, value in options.items():
        if value is not None:
            yield f"--{name}={_quoted(str(value))}"
    yield from ("--open-mode=append", "--no-kill", "--requeue")
    for name, extra in request.sbatch.items():
        if extra is True:
            yield f"--{name}"
        elif extra is not False:
            yield f"--{name}={_quoted(str(extra))}"


def gres(request: JobRequest) -> str | None:
    """Return a node's GPUs as Slurm's ``--gres`` takes them; None for none."""
    if not request.gpus_per_node:
        return None
    kind = f"gpu:{request.gpu_type}" if request.gpu_type else "gpu"
    return f"{kind}:{request.gpus_per_node}"


def _quoted(value: str) -> str:
    r"""Quote a value for an ``#SBATCH`` line: sbatch knows double quotes and backslashes, and expands nothing."""
    if value and all(character.isalnum() or character in "-_./:@,=%+[]" for character in value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _srun(request: JobRequest) -> Iterator[str]:
    """Yield the options of the one step: a node agent per node, which gets all that the job has on it."""
    yield from (f"--nodes={request.nodes}", f"--ntasks={request.nodes}", "--ntasks-per-node=1")
    yield f"--cpus-per-task={request.cpus_per_node}"  # since Slurm 22.05 a step does not take it over from the job
    if (gpus := gres(request)) is not None:
        yield f"--gres={gpus}"
    yield "--cpu-bind=none"
    # one node's end is not the end of the others
    yield from ("--kill-on-bad-exit=0", "--wait=0", "--no-kill", "--input=none")


def _agent(request: JobRequest, site: Site, retry_errors: bool) -> Iterator[str]:
    yield f"--min-nodes={request.min_nodes}"
    yield f"--start-timeout={request.start_timeout:.0f}"
    yield f"--patience={PATIENCE * request.grace:.0f}"
    yield f"--temp-dir={site.temp_dir}"
    if site.interface is not None:
        yield f"--interface={site.interface}"
    if retry_errors:
        yield "--retry-errors"
    yield f"--next={site.next_attempt}"


def _python(environment: Environment, python: str) -> list[str]:
    """Return the words that start Python: the site's own, its container's or environment's, or the one at hand."""
    if environment.container is None:
        has_own = environment.conda is not None or environment.venv is not None
        return [environment.python or ("python" if has_own else python)]
    container = ["apptainer", "exec", "--nv", *environment.container_options, environment.container]
    return [*container, environment.python or "python3"]
