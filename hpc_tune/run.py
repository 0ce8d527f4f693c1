"""The run directory: every path of a run, and the records that are kept there."""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_tune import __version__
from hpc_tune.attempt import Attempt, Cause, SlurmJob, Submission
from hpc_tune.durable import read_json, write_json
from hpc_tune.errors import RunBusy, RunError, RunNotFound
from hpc_tune.experiment.nearest import did_you_mean
from hpc_tune.lock import Lock
from hpc_tune.snapshot import take_snapshot

if TYPE_CHECKING:
    from hpc_tune.experiment.load import LoadedExperiment
    from hpc_tune.experiment.spec import Experiment

__all__ = ["RunDir", "find_run", "list_runs", "stamped_name", "user_name"]

SCHEMA = 1


@dataclass(frozen=True)
class RunDir:
    """One execution of an experiment.

    ```text
    fashion-mnist-asha-20261122-101500/       0700
      run.json                what, when, by whom, versions, spec hash; written once
      experiment.toml         the experiment file as submitted
      code/                   a snapshot of the experiment's folder
      run.lock                held by the driver of a live attempt
      job.sbatch              the job script, for runs on Slurm
      jobs/                   of each Slurm job: its submission, its batch log, stop marker, who cancelled it
      attempts/001/           see Attempt
      followups/001-evaluate/ see FollowUp
      storage/                one folder per trial; state.zip, the state of the search
      samples.json            how many samples it has, where resume --more-samples has extended it
      trials.csv history.csv summary.csv
      .collect.cache          what the next collect need not read again; may be removed
    ```
    """

    path: Path

    @classmethod
    def create(
        cls, runs_dir: Path, loaded: LoadedExperiment, *, overrides: Sequence[str], seed: int, command: Sequence[str]
    ) -> RunDir:
        """Create the directory with all that an attempt needs; ``run.json`` comes last and makes it a run.

        Raises:
            RunError: if it cannot be created; nothing of it is left then.
        """
        run = cls(_reserve(runs_dir, loaded.experiment.name))
        try:
            run._fill(loaded, overrides=overrides, seed=seed, command=command)
        except OSError as error:
            shutil.rmtree(run.path, ignore_errors=True)
            raise _cannot_create(runs_dir, error) from error
        except BaseException:
            shutil.rmtree(run.path, ignore_errors=True)
            raise
        return run

    def _fill(self, loaded: LoadedExperiment, *, overrides: Sequence[str], seed: int, command: Sequence[str]) -> None:
        from hpc_tune.experiment.spec import spec_hash  # node agents have no use for pydantic

        for folder in (self.code, self.attempts_dir, self.storage):
            folder.mkdir(mode=0o700)
        take_snapshot(loaded.folder, self.code)
        experiment_file = self.path / f"experiment{loaded.path.suffix}"
        shutil.copyfile(loaded.path, experiment_file)
        spec = loaded.experiment.as_json()
        record = {
            "schema": SCHEMA,
            "name": loaded.experiment.name,
            "created": time.time(),
            "user": user_name(),
            "host": socket.gethostname(),
            "command": list(command),
            "versions": _versions(),
            "source": str(loaded.path.resolve()),
            "experiment_file": experiment_file.name,
            "overrides": list(overrides),
            "seed": seed,
            "spec": spec,
            "spec_hash": spec_hash(spec),
        }
        write_json(self.record_file, record)

    @property
    def name(self) -> str:
        """The directory's name, by which commands find the run."""
        return self.path.name

    @property
    def record_file(self) -> Path:
        """The run record, written once."""
        return self.path / "run.json"

    @property
    def code(self) -> Path:
        """The snapshot of the experiment's folder."""
        return self.path / "code"

    @property
    def job_script(self) -> Path:
        """The script that Slurm runs; absent where a run has never been submitted."""
        return self.path / "job.sbatch"

    @property
    def jobs_dir(self) -> Path:
        """The folder of what concerns Slurm jobs rather than attempts: one job may make several attempts."""
        return self.path / "jobs"

    def job_log(self, job_id: str) -> Path:
        """What the batch script of a job said, over all its restarts."""
        return self.jobs_dir / f"{job_id}.log"

    def stop_marker(self, job_id: str, restart_count: int) -> Path:
        """Return the empty file that asks the attempt in a job to save and end."""
        return self.jobs_dir / f"{job_id}.{restart_count}.stop"

    def stop_cause(self, job: SlurmJob) -> Cause:
        """Say why a job was asked to stop: the job script puts the signals that came into its stop marker."""
        if self.cancel_file(job.job_id).exists():
            return "cancelled"
        try:
            signals = self.stop_marker(job.job_id, job.restart_count).read_text().split()
        except FileNotFoundError:
            return "terminated"
        return "walltime" if signals[:1] == ["USR1"] else "terminated"

    def refusal_file(self, job: SlurmJob) -> Path:
        """Why a job has made no attempt, in a sentence; absent where it has, or is yet to."""
        return self.jobs_dir / f"{job.job_id}.{job.restart_count}.refused"

    def cancel_file(self, job_id: str) -> Path:
        """By whom a job was ended; absent where nobody did. A job that has one starts no further attempt."""
        return self.jobs_dir / f"{job_id}.cancelled"

    def submissions(self) -> list[Submission]:
        """Return what was sent to Slurm, oldest first."""
        found = (Submission.read(path) for path in self.jobs_dir.glob("*.json"))
        return sorted((each for each in found if each is not None), key=lambda each: each.submitted)

    @property
    def attempts_dir(self) -> Path:
        """The folder of the attempts."""
        return self.path / "attempts"

    @property
    def storage(self) -> Path:
        """Ray Tune's storage path: one folder per trial."""
        return self.path / "storage"

    def record(self) -> dict[str, Any]:
        """Return the run record.

        Raises:
            RunError: if it is missing or of a newer schema.
        """
        record = read_json(self.record_file)
        if record is None or "schema" not in record:
            raise RunError(f"{self.record_file} is missing or damaged")
        if record["schema"] > SCHEMA:
            raise RunError(
                f"{self.path} was written by hpc_tune {record['versions'].get('hpc-tune')}; this is {__version__}"
            )
        return record

    @property
    def experiment_file(self) -> Path:
        """The experiment file as it was submitted.

        A Python file is read in the snapshot, under its own name: worker processes import it from there.
        """
        record = self.record()
        source = Path(record["source"])
        return self.code / source.name if source.suffix == ".py" else self.path / str(record["experiment_file"])

    @property
    def samples_file(self) -> Path:
        """How many samples the search has after it was extended; absent where it never was."""
        return self.path / "samples.json"

    def extended(self, experiment: Experiment) -> Experiment:
        """Return the experiment with as many samples as the search has by now."""
        record = read_json(self.samples_file)
        return experiment if record is None else experiment.model_copy(update=record)

    def attempts(self) -> list[Attempt]:
        """Return the attempts so far, oldest first."""
        return [Attempt(path) for path in sorted(self.attempts_dir.glob("[0-9][0-9][0-9]"))]

    def new_attempt(self) -> Attempt:
        """Make the next attempt's folder. Two callers at once get two numbers: mkdir is the lock."""
        number = len(self.attempts()) + 1
        while True:
            path = self.attempts_dir / f"{number:03d}"
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                number += 1
            else:
                return Attempt(path)

    @property
    def lock(self) -> Lock:
        """Held by the driver of a live attempt."""
        return Lock(self.path / "run.lock")

    @property
    def submit_lock(self) -> Lock:
        """Held by a command that sends the run to Slurm."""
        return Lock(self.path / "submit.lock")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for as long as the block lasts.

        Raises:
            RunBusy: if a live process holds it, or one on another machine.
        """
        with self.lock.held() as got:
            if not got:
                holder = self.lock.holder() or "another process"
                raise RunBusy(f"{self.name} is live: {holder} is at work in it")
            yield


def stamped_name(name: str) -> str:
    """Return the name of a run that an experiment would begin now."""
    return f"{name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"


def _reserve(runs_dir: Path, name: str) -> Path:
    """Make a directory that nobody else has: two runs of one second get two names."""
    stamped = stamped_name(name)
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = runs_dir.resolve() / (stamped if number == 1 else f"{stamped}-{number}")
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                number += 1
            else:
                return path
    except OSError as error:
        raise _cannot_create(runs_dir, error) from error


def _cannot_create(runs_dir: Path, error: OSError) -> RunError:
    return RunError(
        f"cannot create a run in {runs_dir}: {error.strerror or error}",
        hint="choose another place with --runs-dir DIR or $HPC_TUNE_RUNS_DIR",
    )


def user_name() -> str:
    """Return the name of who runs this, or the number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may know no name for the number
        return str(os.getuid())


def _versions() -> Mapping[str, str]:
    versions = {"hpc-tune": __version__, "python": platform.python_version(), "executable": sys.executable}
    for package in ("ray", "torch"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def list_runs(runs_dir: Path) -> list[RunDir]:
    """Return the runs below a directory, oldest first. Folders without a run record are not runs (yet)."""
    try:
        # os.path, unlike Path, says no to what it may not look into: another user's run
        found = [
            RunDir(Path(each))
            for each in os.scandir(runs_dir)
            if os.path.isfile(f"{each.path}/run.json")  # noqa: PTH113
        ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda run: (run.record_file.stat().st_mtime, run.name))


def find_run(runs_dir: Path, reference: str | None) -> RunDir:
    """Return the run that a user means: a directory, a name, a unique prefix, or the latest.

    Raises:
        RunNotFound: if there is none, or several.
    """
    if reference is not None and (Path(reference) / "run.json").is_file():
        return RunDir(Path(reference).resolve())
    runs = list_runs(runs_dir)
    if not runs:
        raise RunNotFound(f"there are no runs in {runs_dir}", hint="start one with: hpc-tune run EXPERIMENT")
    if reference is None:
        return RunDir(runs[-1].path.resolve())
    matches = [run for run in runs if run.name == reference] or [run for run in runs if run.name.startswith(reference)]
    if len(matches) == 1:
        return RunDir(matches[0].path.resolve())
    if matches:
        listed = ", ".join(run.name for run in matches)
        raise RunNotFound(f"{reference!r} could be any of {listed}", hint="type more of the name")
    raise RunNotFound(f"no run {reference!r} in {runs_dir}", hint=did_you_mean(reference, [run.name for run in runs]))
