"""Who watches a search on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from hpc_tune.experiment.spec import Experiment
    from hpc_tune.progress import Progress
    from hpc_tune.run import RunDir

__all__ = ["Watcher"]


class Watcher:
    """Who is told about a live search; this one does not care."""

    def started(self, run: RunDir, experiment: Experiment, notes: Sequence[str]) -> None:
        """The run directory is there, its driver starts."""

    def progress(self, progress: Progress) -> None:
        """The search looks like this now."""

    def stopping(self) -> None:
        """An interrupt came: the driver saves; another one would end it at once."""

    def closed(self) -> None:
        """Nothing more comes, whether it ended well or not."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.closed()
