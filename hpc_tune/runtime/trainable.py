"""The user's trainable as Tune runs it: four forms in, one form out.

Everything here that touches a process is undone at the end of a trial, since the same worker process serves the
next one.
"""

from __future__ import annotations

import gc
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from ray import tune
from ray.train._internal.session import get_session

from hpc_tune.errors import ExperimentError, Fault
from hpc_tune.process import adopt_orphans, descendants, end_descendants
from hpc_tune.runtime.checkpointing import go_on_from
from hpc_tune.runtime.results_log import reported_results
from hpc_tune.runtime.seeding import seed_trial

__all__ = ["TrialSettings", "as_trainable", "can_reuse_worker"]


@dataclass(frozen=True)
class TrialSettings:
    """What every trial of a search has in common."""

    storage: Path
    seed: int
    cpus: float


def as_trainable(user: Any, settings: TrialSettings, data: Any = None, *, has_data: bool = False) -> Any:
    """Return what ``tune.run`` takes for a function or a ``tune.Trainable`` class.

    Args:
        user: ``train(config)``, ``train(config, data)``, ``train(config, reporter)``, or a Trainable class.
        settings: common to all trials.
        data: the result of the experiment's ``data`` function; put into the object store once.
        has_data: whether the experiment has a ``data`` function; its result may be None.

    Raises:
        ExperimentError: if its arguments fit none of the forms.
    """
    is_class = inspect.isclass(user)
    if is_class and not issubclass(user, tune.Trainable):
        raise _misfit(user, "is a class, but not a subclass of ray.tune.Trainable", "derive it from ray.tune.Trainable")
    extra = _extra_argument(user.setup if is_class else user, ("self", "config") if is_class else ("config",))
    if has_data and extra in (None, "reporter"):
        raise _misfit(user, "takes no second argument for the experiment's data", "write def train(config, data)")
    if not has_data and extra not in (None, "reporter"):
        raise _misfit(user, f"needs a second argument {extra!r}", 'add data = "train.py:load_data" to the experiment')
    wrapped = _wrap_class(user, settings) if is_class else _wrap_function(user, settings, extra)
    if not has_data:
        return wrapped
    _share_tensors()
    return tune.with_parameters(wrapped, **{extra if is_class and extra else "data": data})


def _share_tensors() -> None:
    """Have the trials read PyTorch's tensors in the data where they lie in the object store, as they do arrays.

    Ray's own switch for this is an environment variable that has every process import PyTorch, whoever needs it.
    """
    if (torch := sys.modules.get("torch")) is not None:
        from ray._private.tensor_serialization_utils import zero_copy_tensors_reducer
        from ray._private.worker import global_worker

        context = global_worker.get_serialization_context()
        context._register_cloudpickle_reducer(torch.Tensor, zero_copy_tensors_reducer)


def can_reuse_worker(user: Any) -> bool:
    """Tell whether Tune can give a trainable's process to the next trial; a class must say how it is reset."""
    return not inspect.isclass(user) or "reset_config" in {name for base in _own_bases(user) for name in vars(base)}


def _own_bases(user: type) -> list[type]:
    bases = list(user.__mro__)
    return bases[: bases.index(tune.Trainable)]


def _misfit(user: Any, problem: str, advice: str) -> ExperimentError:
    return ExperimentError(f"{user.__module__}:{user.__qualname__}", [Fault("trainable", problem, advice)])


def _extra_argument(function: Callable[..., Any], expected: tuple[str, ...]) -> str | None:
    """Return the name of the required argument behind the usual ones, if there is one."""
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    behind = parameters[len(expected) :]
    if not behind or (behind[0].default is not inspect.Parameter.empty and behind[0].name not in ("data", "reporter")):
        return None
    return behind[0].name


def _wrap_function(user: Callable[..., Any], settings: TrialSettings, extra: str | None) -> Callable[..., Any]:
    def trainable(config: dict[str, Any], data: Any = None) -> Any:
        trial_id = tune.get_context().get_trial_id()
        with _trial_process(settings, str(trial_id)):
            _name_checkpoints_anew(settings.storage / str(trial_id))
            go_on_from(str(trial_id), _iterations_done())
            if extra == "reporter":
                return user(config, _report)
            output = user(config) if extra is None else user(config, data)
            if not inspect.isgenerator(output):
                return output
            for metrics in output:
                tune.report(metrics)
            return None

    trainable.__name__ = user.__name__
    return trainable


def _name_checkpoints_anew(folder: Path) -> None:
    """Have no checkpoint take another one's name, and place.

    Tune counts them, and loses count when a trial pauses or dies while one is on its way to the driver. Results name
    their checkpoints, and another trial may be about to go on from one.
    """
    names = [each.metrics.get("checkpoint_dir_name") for each in reported_results(folder)]
    names += [path.name for path in folder.glob("checkpoint_*")]
    storage = get_session().storage
    taken = (int(name.rpartition("_")[2]) for name in names if name)
    storage.current_checkpoint_index = max([storage.current_checkpoint_index, *taken])


def _iterations_done() -> int:
    """Return how many iterations are behind the checkpoint that a trial goes on from, its own or another trial's."""
    if (checkpoint := tune.get_checkpoint()) is None:
        return 0
    path = Path(checkpoint.path)
    named = (each for each in reported_results(path.parent) if each.checkpoint == path)
    return max((each.iteration for each in named), default=0)


def _report(_metrics: Mapping[str, Any] | None = None, /, **metrics: Any) -> None:
    """The ``reporter`` of older trainables: metrics by keyword."""
    tune.report({**(_metrics or {}), **metrics})


def _wrap_class(user: type[tune.Trainable], settings: TrialSettings) -> type[tune.Trainable]:
    class Trainable(user):
        def setup(self, config: dict[str, Any], **parameters: Any) -> None:
            self._process = _trial_process(settings, self.trial_id)
            self._process.__enter__()
            super().setup(config, **parameters)

        def reset_config(self, new_config: dict[str, Any]) -> Any:
            self._process.__exit__(None, None, None)
            self._process = _trial_process(settings, self.trial_id)
            self._process.__enter__()
            return super().reset_config(new_config)

        def cleanup(self) -> None:
            super().cleanup()
            self._process.__exit__(None, None, None)

    Trainable.__name__ = user.__name__
    return Trainable


@contextmanager
def _trial_process(settings: TrialSettings, trial_id: str) -> Iterator[None]:
    """Make a worker process a trial's own: its folder, its output, its seeds; and clean up behind it."""
    folder = settings.storage / trial_id
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    logging.getLogger("ray").setLevel(logging.WARNING)  # the output is the user's; Ray announces each checkpoint
    seed_trial(settings.seed, trial_id, settings.cpus)
    adopt_orphans()
    others = descendants()
    _set_imports_apart()
    with _output_to(folder / "output.log"):
        try:
            yield
        finally:
            os.chdir("/")
            end_descendants({*others, *_shared_children()})
            _free_memory()


@cache
def _set_imports_apart() -> None:
    """Spare what a process has imported before its first trial, Ray and PyTorch, the collection behind each trial.

    To go through all of it takes nearly a tenth of a second.
    """
    gc.freeze()


def _shared_children() -> set[int]:
    """Return the processes that multiprocessing keeps for the next one who needs them."""
    kept = ((resource_tracker._resource_tracker, "_pid"), (forkserver._forkserver, "_forkserver_pid"))
    return {pid for owner, name in kept if (pid := getattr(owner, name, None))}


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send what this process and its children print to a file; remove the file if they were silent."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for kept, standard in zip(saved, (1, 2), strict=True):
            os.dup2(kept, standard)
            os.close(kept)
        silent = os.fstat(descriptor).st_size == 0
        os.close(descriptor)
        if silent:
            path.unlink(missing_ok=True)
