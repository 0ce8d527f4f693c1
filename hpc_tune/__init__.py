"""Hyperparameter searches with Ray Tune on a Slurm cluster, from one file and one command.

Importing this package costs nothing: what needs Ray, PyTorch or pandas is imported where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpc_tune.experiment.spec import Experiment
    from hpc_tune.operations.notebook import evaluate, load_run, replay, resume, status, submit
    from hpc_tune.runtime.checkpointing import should_checkpoint

__all__ = [
    "Experiment",
    "__version__",
    "evaluate",
    "load_run",
    "replay",
    "resume",
    "should_checkpoint",
    "status",
    "submit",
]

__version__ = "0.1.0"

_NOTEBOOK = ("evaluate", "load_run", "replay", "resume", "status", "submit")


def __getattr__(name: str) -> Any:
    """Import public names on first use (PEP 562), so that the command line starts fast."""
    if name == "Experiment":
        from hpc_tune.experiment.spec import Experiment

        return Experiment
    if name == "should_checkpoint":
        from hpc_tune.runtime.checkpointing import should_checkpoint

        return should_checkpoint
    if name in _NOTEBOOK:
        from hpc_tune.operations import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
