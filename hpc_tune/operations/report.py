"""The report of runs: read, draw, write."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_tune.durable import write_text
from hpc_tune.errors import RunError, UsageError
from hpc_tune.experiment.spec import flatten
from hpc_tune.followup import FollowUp
from hpc_tune.operations.facts import AttemptFacts
from hpc_tune.operations.tables import Gathered, gather
from hpc_tune.run import RunDir

if TYPE_CHECKING:
    from hpc_tune.results.report.view import AttemptSpan, RunView

__all__ = ["Reported", "report", "view_of"]

FILE = "report.html"


@dataclass(frozen=True)
class Reported:
    """A report that was written."""

    runs: tuple[RunDir, ...]
    file: Path
    size: int
    """Bytes."""
    plots: tuple[str, ...]
    """The names of its plots."""
    tables: tuple[Path, ...]
    """The tables with the same numbers, written beside it."""
    images: tuple[Path, ...] = ()
    """The plots as PNG files, where they were asked for."""


def report(runs: Sequence[RunDir], *, output: Path | None = None, png: Path | None = None) -> Reported:
    """Write one HTML file about a run, or one that compares several; their tables are written, too.

    Args:
        runs: the runs; live ones are shown as they are now.
        output: where to; left out, ``report.html`` in the run's directory, for several runs in the current one.
        png: a directory for the plots as PNG files, too.

    Raises:
        UsageError: if several runs do not search for the best of one metric, or what draws PNG files is missing.
        RunError: if a run cannot be read, or the file not be written.
    """
    from hpc_tune.results.report.page import comparison_page, run_page
    from hpc_tune.results.report.png import check_png, write_pngs

    if png is not None:
        check_png()
    gathered = [gather(run) for run in dict.fromkeys(runs)]
    _check_comparable(gathered)
    views = [view_of(each) for each in gathered]
    alone = len(views) == 1
    file = output or (gathered[0].run.path if alone else Path()) / FILE
    page = run_page(views[0]) if alone else comparison_page(views)
    tables = [path for each in gathered if os.access(each.run.path, os.W_OK) for path in each.write()]
    images = [] if png is None else write_pngs(page.figures, png)
    return Reported(
        tuple(each.run for each in gathered),
        file,
        _write(file, page.html),
        tuple(page.figures),
        tuple(tables),
        tuple(images),
    )


def _write(file: Path, page: str) -> int:
    try:
        write_text(file, page)
        return file.stat().st_size
    except OSError as error:
        raise RunError(
            f"cannot write {file}: {error.strerror or error}", hint="choose another place with --output FILE"
        ) from error


def _check_comparable(gathered: Sequence[Gathered]) -> None:
    first = gathered[0]
    for other in gathered[1:]:
        if (other.info.metric, other.info.mode) != (first.info.metric, first.info.mode):
            raise UsageError(
                f"{first.run.name} searches for the {first.info.mode} of {first.info.metric},"
                f" {other.run.name} for the {other.info.mode} of {other.info.metric}: they cannot be compared",
                hint="name runs with the same metric and mode, or write a report of each",
            )


def view_of(gathered: Gathered) -> RunView:
    """Return a run as reports see it."""
    from hpc_tune.results.checkpoints import trial_config
    from hpc_tune.results.images import find_images
    from hpc_tune.results.population import read_population
    from hpc_tune.results.report.view import RunView
    from hpc_tune.results.spans import read_spans
    from hpc_tune.results.toml import nested

    run, best = gathered.run, gathered.best
    ids = [str(each) for each in gathered.tables.trials["trial_id"]]
    first = [str(best["trial_id"])] if best else []
    checkpoint = gathered.best_checkpoint
    images, left_out = find_images(run.storage, dict.fromkeys([*first, *ids]), checkpoint.path if checkpoint else None)
    flat = {key.removeprefix("config/"): value for key, value in (best or {}).items() if key.startswith("config/")}
    return RunView(
        name=run.name,
        spec=gathered.record["spec"],
        info=gathered.info,
        tables=gathered.tables,
        summary={name: None if value != value else value for name, value in gathered.row.items()},  # noqa: PLR0124
        best=best,
        best_config=(trial_config(run.storage / first[0]) if first else None) or nested(flat),
        attempts=[span for each in gathered.attempts if (span := _attempt_span(AttemptFacts.read(each)))],
        spans=read_spans(run.storage, ids),
        population=read_population(run.storage),
        images=images,
        images_left_out=left_out,
        versions=gathered.record["versions"],
        evaluations=list(_evaluations(run)),
    )


def _evaluations(run: RunDir) -> Iterator[dict[str, Any]]:
    for each in FollowUp.of_run(run.path):
        outcome = each.outcome()
        if outcome is not None and "metrics" in outcome.result:
            yield outcome.result | {"metrics": dict(flatten(outcome.result["metrics"], ""))}


def _attempt_span(facts: AttemptFacts) -> AttemptSpan | None:
    """Return an attempt's time; None for one that has not really begun."""
    from hpc_tune.results.report.view import AttemptSpan

    record, outcome = facts.record, facts.outcome
    if record is None or facts.started is None or facts.ended is None:
        return None
    return AttemptSpan(
        number=facts.attempt.number,
        started=facts.started,
        ended=facts.ended,
        nodes=record.nodes,
        cpus=record.cpus,
        gpus=record.gpus,
        ending=outcome.ending if outcome else "",
        reason=outcome.reason if outcome else "",
        job_id=record.job.job_id if record.job else "",
    )
