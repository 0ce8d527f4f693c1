"""A replay: one trial from scratch, along the hyperparameters of a member of a population. It is a run of its own."""

from __future__ import annotations

import math
import random
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpc_tune.errors import RunError, SlurmError
from hpc_tune.experiment.load import LoadedExperiment, load_experiment
from hpc_tune.experiment.space import Domain
from hpc_tune.experiment.spec import Experiment, flatten
from hpc_tune.followup import Executor, FollowUp, FollowUpRecord
from hpc_tune.machine import this_machine
from hpc_tune.operations.best import best
from hpc_tune.operations.local import Ended, search_of
from hpc_tune.operations.local import run as run_search
from hpc_tune.operations.logs import find_trial
from hpc_tune.operations.planning import plan_again
from hpc_tune.operations.submit import Submitted, send
from hpc_tune.operations.watching import Watcher
from hpc_tune.run import RunDir
from hpc_tune.slurm.client import Slurm

if TYPE_CHECKING:
    from hpc_tune.results.population import Exploit

__all__ = ["check_population", "replay_here", "replay_on_slurm"]

LONGEST_NAME = 64


@dataclass(frozen=True)
class _Replay:
    """A replay that can begin."""

    source: RunDir
    trial_id: str
    loaded: LoadedExperiment
    overrides: tuple[str, ...]
    seed: int

    def create(self) -> RunDir:
        """Create the run beside its source."""
        return RunDir.create(
            self.source.path.parent, self.loaded, overrides=self.overrides, seed=self.seed, command=sys.argv
        )

    def put_on_record(self, run: RunDir, executor: Executor) -> None:
        """Have the source tell of the run."""
        made = FollowUp.create(self.source.path, "replay")
        arguments = {"trial": self.trial_id, "replay": str(run.path)}
        FollowUpRecord(
            "replay", executor, socket.gethostname(), time.time(), (str(self.source.path),), arguments=arguments
        ).write(made.record_file)


def replay_here(
    run: RunDir,
    trial: str | None = None,
    *,
    cpus: float | None = None,
    gpus: float | None = None,
    watcher: Watcher | None = None,
    on_record: bool = False,
) -> Ended:
    """Retrain along the schedule of a member of a population, on this machine.

    Args:
        run: the run with the population.
        trial: a trial's id, the beginning of it, or its number; None: the best.
        cpus: how many to use; None: all.
        gpus: the same.
        watcher: who is told about the search.
        on_record: whether the run knows of it already.

    Raises:
        RunError: if the run has no population, the trial no schedule, or not a whole one yet.
        ExperimentError: if the trial can never fit this machine.
    """
    found = _replay(run, trial)
    search = search_of(found.loaded, found.overrides, this_machine(cpus=cpus, gpus=gpus))

    def on_created(created: RunDir) -> None:
        if not on_record:
            found.put_on_record(created, "here")

    return run_search(search, runs_dir=run.path.parent, watcher=watcher, on_created=on_created)


def replay_on_slurm(
    run: RunDir, trial: str | None = None, *, overrides: Sequence[str] = (), on_record: bool = False, slurm: Slurm
) -> Submitted:
    """Send a replay to Slurm, as any run: it has attempts, a successor at the walltime, and can be resumed.

    Args:
        run: the run with the population.
        trial: a trial's id, the beginning of it, or its number; None: the best.
        overrides: ``KEY=VALUE`` texts for ``[allocation]``; left out, one node with what the trial needs.
        on_record: whether the run knows of it already.
        slurm: where to.

    Raises:
        RunError: if the run has no population, the trial no schedule, or not a whole one yet.
        ExperimentError: if it asks for what the site does not have.
        SlurmError: if Slurm refuses; nothing of the replay is left then.
    """
    found = _replay(run, trial, overrides)
    (planned,) = plan_again([found.loaded], [run], slurm)
    created = found.create()
    try:
        job_id = send(created, planned.script(created.path), by="submit", slurm=slurm)
    except (SlurmError, RunError, OSError) as error:
        if not getattr(error, "outcome_unknown", False):
            shutil.rmtree(created.path, ignore_errors=True)
        raise
    if not on_record:
        found.put_on_record(created, "slurm")
    return Submitted(created, job_id, planned)


def check_population(run: RunDir) -> None:
    """Refuse a run without a population.

    Raises:
        RunError: if its trial scheduler is another one.
    """
    scheduler = run.record()["spec"]["trial_scheduler"]
    if isinstance(scheduler, Mapping) and scheduler.get("name") != "pbt":
        raise RunError(
            f"{run.name} is no population based training: its trial scheduler is {scheduler.get('name')}",
            hint=f"its trials kept their configs; train with one: hpc-tune best {run.name} --toml",
        )


def _replay(run: RunDir, trial: str | None, overrides: Sequence[str] = ()) -> _Replay:
    check_population(run)
    trial_id = best(run).trial_id if trial is None else find_trial(run.storage, trial)
    lineage = _lineage(run, trial_id)
    record = run.record()
    original = load_experiment(run.experiment_file, record["overrides"], folder=run.code).experiment
    changes = (*record["overrides"], *_changes(original, trial_id, lineage), *overrides)
    loaded = load_experiment(run.experiment_file, changes, folder=run.code)
    seed = loaded.experiment.seed
    return _Replay(run, trial_id, loaded, changes, random.SystemRandom().randrange(2**32) if seed is None else seed)


def _lineage(run: RunDir, trial_id: str) -> list[Exploit]:
    """Return the exploits that led to a trial that has ended.

    Raises:
        RunError: if there are none, or more may come.
    """
    from hpc_tune.results.population import read_population
    from hpc_tune.results.state import read_state

    if run.lock.holder() is not None:
        statuses = {state.trial_id: state.status for state in read_state(run.storage).trials}
        if statuses.get(trial_id) != "TERMINATED":
            raise RunError(
                f"trial {trial_id} of {run.name} is still at work: its schedule is not whole",
                hint=f"wait until it has ended, or add: --after {run.name}",
            )
    if lineage := read_population(run.storage).lineage(trial_id):
        return lineage
    raise RunError(
        f"there is no policy of trial {trial_id} in {run.name}: it never went on from another trial's checkpoint",
        hint=f"its config never changed; choose another trial, or train with it: hpc-tune best {run.name} --toml",
    )


def _changes(original: Experiment, trial_id: str, lineage: Sequence[Exploit]) -> Iterator[str]:
    """Yield the ``KEY=VALUE`` texts that turn a population's experiment into the replay of one of its trials."""
    suffix = f"-replay-{trial_id}"
    yield f'name="{original.name[: LONGEST_NAME - len(suffix)]}{suffix}"'
    yield from ("num_samples=1", 'searcher={ name = "random" }')
    configs = [dict(flatten(config, "")) for config in (lineage[0].before, *(each.after for each in lineage))]
    fixed = {key for key, value in flatten(original.space, "") if not _is_searched(value)}
    changing = {key for config in configs for key, value in config.items() if value != configs[0].get(key)}
    for key, value in configs[0].items():
        if key not in fixed or key in changing:
            yield f"space.{key}={_toml(key, value)}"
    schedule = []
    for each, before, after in zip(lineage, configs, configs[1:], strict=False):
        new = {key: value for key, value in after.items() if value != before.get(key)}
        schedule.append({"after": each.source_iteration, "config": _nested(new)})
    yield f"trial_scheduler={_toml('trial_scheduler', {'name': 'replay', 'schedule': schedule})}"
    yield from ("allocation.nodes=1", "allocation.min_nodes=1")
    yield f"allocation.cpus_per_node={math.ceil(original.trial.cpus)}"
    if original.allocation.gpus_per_node != 0:  # 0: its owner wants none
        yield f"allocation.gpus_per_node={math.ceil(original.trial.gpus)}"


def _is_searched(value: Any) -> bool:
    """Tell whether a leaf of the space stands for values that are drawn: a domain of ours or of Ray's, or a grid."""
    return isinstance(value, Domain | Mapping) or hasattr(value, "get_sampler")


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    from hpc_tune.results.toml import nested

    return nested({key.replace(".", "/"): value for key, value in flat.items()})


def _toml(key: str, value: Any) -> str:
    from hpc_tune.results.toml import toml_value

    if (text := toml_value(value)) is None:
        raise RunError(f"{key} = {value!r} cannot be written down for a replay")
    return text
