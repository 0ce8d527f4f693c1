"""What a population did: who took over whose checkpoint, when, and with which hyperparameters it went on."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpc_tune.results.columns import columns_of
from hpc_tune.results.state import read_state

__all__ = ["Exploit", "Population", "read_population"]

LOG = "pbt_global.txt"


@dataclass(frozen=True)
class Exploit:
    """A member that went on from another's checkpoint, with a config of its own; both flat, with ``/``."""

    trial_id: str
    source_id: str
    iteration: int
    """The member's own iteration when it happened."""
    source_iteration: int
    """The iteration of the checkpoint that it took over."""
    config: Mapping[str, Any]
    before: Mapping[str, Any] = field(default_factory=dict)
    """The source's config at that time, nested as it was logged."""
    after: Mapping[str, Any] = field(default_factory=dict)
    """The member's from then on, nested."""


@dataclass(frozen=True)
class Population:
    """The exploits of a run in the order in which they happened, and what each trial began with."""

    exploits: tuple[Exploit, ...] = ()
    sampled: Mapping[str, Mapping[str, Any]] | None = None

    def schedule(self, trial_id: str, name: str) -> list[tuple[int, Any]]:
        """Return a hyperparameter's values in a trial, each with the iteration after which it held.

        The first stands at 0; it is missing where the state of the search does not know it any more.
        """
        first = (self.sampled or {}).get(trial_id, {}).get(name)
        steps = [] if first is None else [(0, first)]
        own = (each for each in self.exploits if each.trial_id == trial_id and name in each.config)
        # what a member learns after an exploit continues the iterations of its source
        return steps + [(each.source_iteration, each.config[name]) for each in own]

    def lineage(self, trial_id: str) -> list[Exploit]:
        """Return the exploits that a trial's weights have gone through, its ancestors' included, oldest first.

        Empty where it never took over anything.
        """
        steps: list[Exploit] = []
        for each in reversed(self.exploits):
            if each.trial_id != trial_id:
                continue
            trial_id = each.source_id
            if steps and each.source_iteration >= steps[-1].source_iteration:  # nobody has trained with its config
                steps[-1] = replace(steps[-1], source_id=each.source_id, before=each.before)
            else:
                steps.append(each)
        return steps[::-1]


def read_population(storage: Path) -> Population:
    """Read what Ray's population based training logged; a storage path without such a log has no exploits.

    While a search is at work its log is in ``state.zip`` alone.
    """
    lines = _log(storage).splitlines()
    if not lines:
        return Population()
    states = read_state(storage).trials
    ids = {state.tag: state.trial_id for state in states}
    return Population(tuple(_exploits(lines, ids)), {state.trial_id: state.sampled for state in states})


def _log(storage: Path) -> str:
    try:
        with zipfile.ZipFile(storage / "state.zip") as archive:
            return archive.read(LOG).decode("utf-8", "replace")
    except (OSError, KeyError, zipfile.BadZipFile):
        pass
    try:
        return (storage / LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _exploits(lines: list[str], ids: Mapping[str, str]) -> Iterator[Exploit]:
    for line in lines:
        try:
            member, source, iteration, source_iteration, before, after = json.loads(line)
            flat = {name: column[0] for name, column in columns_of([after]).items()}
            when = int(iteration), int(source_iteration)
        except (ValueError, TypeError, AttributeError):  # half a line, or none of Ray's
            continue
        yield Exploit(ids.get(member, member), ids.get(source, source), *when, flat, before, after)
