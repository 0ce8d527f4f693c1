"""What the search has found, in words and small tables."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpc_tune.experiment.duration import format_seconds
from hpc_tune.results.report.allocation import Share, share
from hpc_tune.results.report.cells import numbers, words
from hpc_tune.results.report.view import BEST, RunView
from hpc_tune.results.toml import as_toml

__all__ = ["Failure", "Place", "config_toml", "failures", "how_found", "pictures", "runner_up", "state_words", "top"]

TOP = 10
MOST_NAMED = 8


@dataclass(frozen=True)
class Place:
    """A trial in the ranking; ``config`` holds what differs between trials, as people read it."""

    trial_id: str
    value: float
    outcome: str
    iterations: int
    config: Mapping[str, str]


@dataclass(frozen=True)
class Failure:
    """An error and the trials that ended with it."""

    error: str
    trial_ids: Sequence[str]

    @property
    def named(self) -> str:
        """The trials, of many the first."""
        more = len(self.trial_ids) - MOST_NAMED
        return ", ".join(self.trial_ids[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def top(view: RunView, count: int = TOP) -> list[Place]:
    """Return the best trials, the best first, of equals the first."""
    trials = view.tables.trials
    values = numbers(trials[BEST])
    ranked = values.dropna().sort_values(ascending=view.info.mode == "min", kind="stable")
    settings = {name: words(trials[f"config/{name}"]) for name in view.hyperparameters}
    return [
        Place(
            str(trials["trial_id"][row]),
            float(values[row]),
            view.outcomes[row],
            int(trials["iterations"][row]),
            {name: column[row] for name, column in settings.items()},
        )
        for row in ranked.index[:count].astype(int).tolist()  # the index of a table is the number of the row
    ]


def runner_up(view: RunView) -> Place | None:
    """Return the second best trial."""
    ranked = top(view, 2)
    return ranked[1] if len(ranked) > 1 else None


def state_words(view: RunView) -> str:
    """Return how many trials ended how."""
    return ", ".join(f"{view.outcomes.count(word)} {word}" for word in dict.fromkeys(view.outcomes)) or "none"


def how_found(view: RunView) -> list[tuple[str, str]]:
    """Return how the answer was found, as pairs of a word and what stands beside it."""
    wall = view.summary.get("wall_seconds")
    hours = share(view)
    facts = [
        ("searcher", view.searcher),
        ("trial scheduler", view.trial_scheduler),
        ("trials", f"{len(view.tables.trials)}: {state_words(view)}"),
        ("wall time", "unknown" if wall is None else f"{format_seconds(float(wall))} at work"),
        ("attempts", _attempts(view)),
        (f"{hours.unit}-hours", _hours(hours)),
    ]
    if warning := view.tables.report.warning():
        facts.append(("damage", warning))
    return facts


def _attempts(view: RunView) -> str:
    ends = Counter(each.ending or "not ended" for each in view.attempts)
    told = ", ".join(f"{count} {ending}" for ending, count in ends.items())
    return f"{len(view.attempts)}" + (f" ({told})" if ends and ends != {"completed": 1} else "")


def _hours(hours: Share) -> str:
    if hours.percent is None:
        return f"{hours.trained:.3g} trained"
    again = f", {hours.repeated:.3g} done again after interruptions" if hours.repeated else ""
    return f"{hours.allocated:.3g} allocated, {hours.trained:.3g} ({hours.percent:.0f} %) trained{again}"


def config_toml(view: RunView) -> str:
    """Return the best trial's config as TOML."""
    return as_toml(view.best_config)


def failures(view: RunView) -> list[Failure]:
    """Return the errors of failed trials, the most frequent first."""
    trials = view.tables.trials
    grouped: dict[str, list[str]] = {}
    for trial_id, word, error in zip(trials["trial_id"], view.outcomes, trials["error"], strict=True):
        if word == "failed":
            grouped.setdefault(str(error) or "no message is on record", []).append(str(trial_id))
    return [Failure(error, ids) for error, ids in sorted(grouped.items(), key=lambda item: -len(item[1]))]


def pictures(view: RunView) -> list[tuple[str, str, str]]:
    """Return trial, name and data URI of each image."""
    return [
        (each.trial_id, each.name, "data:image/png;base64," + base64.b64encode(each.data).decode())
        for each in view.images
    ]
