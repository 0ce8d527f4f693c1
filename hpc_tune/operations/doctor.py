"""The preflight of this machine, its cluster, and a compute node of it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpc_tune.errors import HpcTuneError
from hpc_tune.experiment.allocation import Allocation
from hpc_tune.experiment.spec import TrialResources
from hpc_tune.jobscript import environment_script
from hpc_tune.operations.machine_facts import MachineFacts, read_facts
from hpc_tune.operations.preflight import (
    LOCAL,
    Check,
    existing_part,
    file_system,
    machine_checks,
    place_checks,
    same_software,
    site_of,
    slurm_checks,
)
from hpc_tune.request import resolve_request
from hpc_tune.site import Site
from hpc_tune.slurm.client import Slurm

__all__ = ["PATIENCE", "Preflight", "preflight"]

PATIENCE = 120.0
"""Seconds to wait for a node."""


@dataclass(frozen=True)
class Preflight:
    """What was looked at."""

    checks: tuple[Check, ...]
    facts: tuple[MachineFacts, ...]
    """Of this machine, then of the compute node."""

    @property
    def is_ready(self) -> bool:
        """Whether nothing stands in the way of a search."""
        return all(check.state != "fail" for check in self.checks)


def preflight(runs_dir: Path | None, *, job: bool, slurm: Slurm | None = None, patience: float = PATIENCE) -> Preflight:
    """Look for what would make a search fail.

    Args:
        runs_dir: where runs are kept; None: where the site says, else ``./runs``.
        job: whether to look at a compute node, too, by a small job.
        slurm: whom to ask.
        patience: seconds to wait for that node.
    """
    slurm = slurm or Slurm()
    checks = list(slurm_checks(slurm))
    answers = all(check.state != "fail" for check in checks)
    site, found = site_of(slurm if answers else None)
    place = runs_dir or (site.runs_path() if site else None) or Path("runs")
    here = read_facts(site.temp_dir if site and answers and slurm.is_installed else tempfile.gettempdir())
    with_gpus = site is not None and any(each.gpus_per_node for each in site.partitions.values())
    checks += [found, *machine_checks(here, wants_gpus=with_gpus), *place_checks(place)]
    if not job or not answers or not slurm.is_installed or site is None:
        checks += _unseen(place) if slurm.is_installed else []
        return Preflight(tuple(checks), (here,))
    node = _Node(slurm, site, place, patience)
    checks += node.checks(here, wants_gpus=with_gpus)
    return Preflight(tuple(checks), (here, *node.facts))


def _unseen(place: Path) -> list[Check]:
    existing = existing_part(place)
    kind = file_system(existing)
    if kind not in LOCAL:
        return [Check("shared", "ok", f"{existing} is on {kind or 'an unknown file system'}")]
    fix = "hpc-tune doctor --job tries it; choose --runs-dir on a file system that all nodes share"
    return [Check("shared", "warn", f"{existing} is on {kind}, which other nodes may not see", fix)]


class _Node:
    """A compute node, seen through a job of a few seconds."""

    def __init__(self, slurm: Slurm, site: Site, place: Path, patience: float) -> None:
        self._slurm, self._site, self._place, self._patience = slurm, site, place, patience
        self.facts: tuple[MachineFacts, ...] = ()

    def checks(self, here: MachineFacts, *, wants_gpus: bool) -> Iterator[Check]:
        try:
            with self._probe() as (probe, secret):
                there = MachineFacts.from_json(self._ask(probe))
        except HpcTuneError as error:
            fix = error.hint or "try again, or change partition, account or qos in the site's profile"
            yield Check("compute node", "fail", error.message, fix)
        except (OSError, ValueError) as error:
            yield Check("compute node", "fail", f"no answer: {error}", "correct [environment] in the site's profile")
        else:
            self.facts = (there,)
            yield Check("compute node", "ok", f"{there.host} answered")
            yield self._shared(there, secret)
            yield same_software(here, there)
            for each in machine_checks(there, wants_gpus=wants_gpus):
                if each.state != "ok" and each.name != "ray token":
                    yield Check(f"{each.name} of {there.host}", each.state, each.sentence, each.fix)

    @contextmanager
    def _probe(self) -> Iterator[tuple[Path, str]]:
        """Leave a file where runs are kept, for the node to read."""
        existing = next(
            parent for parent in (self._place.absolute(), *self._place.absolute().parents) if parent.exists()
        )
        with tempfile.NamedTemporaryFile("w", prefix=".hpc-tune-doctor-", dir=existing) as file:
            file.write(file.name)
            file.flush()
            yield Path(file.name), file.name

    def _ask(self, probe: Path) -> str:
        """Run ourselves on a node, in the environment of a job."""
        request = resolve_request(Allocation(nodes=1, cpus_per_node=1), self._site, TrialResources(cpus=1, gpus=0))
        setup = environment_script(self._site.environment, python=sys.executable)
        command = f'{setup}exec "${{python[@]}}" -m hpc_tune doctor --facts "$1" "$2"\n'
        options = {
            "job-name": "hpc-tune-doctor",
            "time": "5",
            "cpus-per-task": "1",
            "partition": request.partition,
            "account": request.account,
            "qos": request.qos,
        }
        words = ["bash", "-c", command, "doctor", self._site.temp_dir, str(probe)]
        return self._slurm.run_on_node(words, options, patience=self._patience)

    def _shared(self, there: MachineFacts, secret: str) -> Check:
        if there.probe == secret:
            return Check("shared", "ok", f"{there.host} sees {self._place}")
        fix = "choose --runs-dir, or runs_dir in the site's profile, on a file system that all nodes share"
        return Check("shared", "fail", f"{there.host} does not see what is written to {self._place}", fix)
