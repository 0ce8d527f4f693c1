"""Where faults happen: a sandbox of several lanes, each with nodes of its own, and the runs on them."""

from __future__ import annotations

import csv
import json
import os
import queue
import random
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_tune_slurm.sandbox import Sandbox, SandboxError
from hpc_tune_slurm.sandbox.daemons import Daemons
from hpc_tune_slurm.sandbox.layout import Layout
from hpc_tune_slurm.sandbox.waiting import wait_until

from hpc_tune.attempt import Outcome
from hpc_tune.results.trials import read_trials
from hpc_tune.run import RunDir
from tests.fault.searches import GRID, STEPS, TRAINABLE, Ledger, experiment_of, score_of, short_pause
from tests.sandbox.login import LIVE, Login

__all__ = ["Field", "Lane", "Row", "Search"]

SECONDS = 240.0
"""No attempt takes a minute on idle cores; on busy ones several times as long."""
ITERATION = 0.3


@dataclass
class Row:
    """What a fault did to a run: one line of the table."""

    fault: str
    search: str
    attempts: int
    lost: int
    again: int
    repeated: int
    allowed: int
    different: int | None
    """Results other than those of a search without faults; None where they depend on the order of events."""

    def cells(self) -> list[str]:
        different = "-" if self.different is None else str(self.different)
        numbers = [self.attempts, self.lost, self.again]
        return [self.fault, self.search, *map(str, numbers), f"{self.repeated} (≤ {self.allowed})", different]


@dataclass
class Field:
    """The sandbox, who uses it, and what has come of the faults so far."""

    sandbox: Sandbox
    login: Login
    small_disk: Path
    """A mount of its own that all nodes see."""
    seed: int
    rows: list[Row] = field(default_factory=list)
    lanes: queue.Queue[tuple[str, ...]] = field(default_factory=queue.Queue)
    closed: threading.Event = field(default_factory=threading.Event)
    baselines: dict[str, dict[float, float]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def lane(self, name: str) -> Iterator[Lane]:
        """Lend out nodes that nobody else uses meanwhile."""
        nodes = self.lanes.get()
        try:
            yield Lane(self, name, nodes, random.Random(f"{self.seed} {name}"))
        finally:
            self.lanes.put(nodes)

    def restart_slurmctld(self) -> None:
        """End the controller in an orderly way and start it again, as administrators do."""
        config = self.sandbox.config
        daemons = Daemons(Layout(config.state_dir), config)
        running = daemons.started()["slurmctld"]
        self.login.call(["scontrol", "shutdown", "slurmctld"])
        wait_until(lambda: not running.is_alive, "the end of slurmctld", SECONDS)
        daemons.start_slurmctld()
        wait_until(lambda: self.login.call(["squeue"]).returncode == 0, "an answer of slurmctld", SECONDS)

    def expected(self, algorithm: str, steps: int) -> dict[float, float]:
        """Return the results of a search without any fault: the score of each learning rate."""
        if algorithm == "grid":
            return {lr: score_of(lr, steps) for lr in GRID}
        assert steps == STEPS
        with self.lock:
            if algorithm not in self.baselines:
                self.baselines[algorithm] = self._baseline(algorithm)
            return self.baselines[algorithm]

    def _baseline(self, algorithm: str) -> dict[float, float]:
        name = f"baseline-{algorithm}"
        experiment = experiment_of(algorithm, ledger=self.login.home / f"{name}.ledger", every=STEPS, seconds=0)
        project = self.login.project(TRAINABLE, experiment, name=name)
        self.login.hpc_tune("run", cwd=project)
        (run,) = (project / "runs").iterdir()
        return {float(row["config/lr"]): float(row["score"]) for row in read_rows(run / "trials.csv")}


@dataclass
class Lane:
    """Some nodes for one scenario, with its own source of random instants."""

    field: Field
    name: str
    nodes: tuple[str, ...]
    random: random.Random

    def search(self, algorithm: str, **options: Any) -> Search:
        """Submit a search to this lane's nodes."""
        return Search.submit(self, algorithm, **options)

    def processes(self, node: str, what: str) -> list[int]:
        """Return the processes of a node that run a program, without those that they started themselves."""
        lines = self.field.sandbox.exec(node, ["ps", "-eo", "pid=,ppid=,args="]).stdout.splitlines()
        rows = [line.split(maxsplit=2) for line in lines]
        found = {int(pid): int(parent) for pid, parent, args in rows if what in args and "srun" not in args}
        return [pid for pid, parent in found.items() if parent not in found]

    def kill(self, node: str, what: str) -> None:
        """Kill one program on a node."""
        (pid,) = self.processes(node, what)
        self.kill_pid(node, pid)

    def kill_pid(self, node: str, pid: int) -> None:
        self.field.sandbox.exec(node, ["kill", "-KILL", str(pid)])

    def slurm(self, *argv: str) -> str:
        """Run a Slurm command as the user."""
        done = self.field.login.call(argv)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout.strip()


@dataclass
class Search:
    """A run on Slurm whose ledger is kept."""

    lane: Lane
    algorithm: str
    run: RunDir
    ledger: Ledger
    every: int
    steps: int
    trials: int
    finished: dict[str, int] = field(default_factory=dict)
    """How many iterations the trials had executed that were over when a fault came."""

    @classmethod
    def submit(
        cls,
        lane: Lane,
        algorithm: str,
        *,
        nodes: int = 1,
        every: int = 3,
        seconds: float = ITERATION,
        steps: int = STEPS,
        arguments: Sequence[str | Path] = (),
        trainable: str = TRAINABLE,
        **further: Any,
    ) -> Search:
        login, name = lane.field.login, "-".join(re.findall("[a-z0-9]+", lane.name.lower()))
        ledger = Ledger(login.home / f"{name}.ledger")
        experiment = experiment_of(algorithm, ledger=ledger.path, every=every, seconds=seconds, steps=steps) | further
        project = login.project(trainable, experiment, name=name)
        others = [node for node in lane.field.sandbox.config.node_names if node not in lane.nodes]
        placed = [f"--nodes={nodes}", "--cpus-per-node=2", f"--exclude={','.join(others)}"]
        run = login.submit(project, *placed, *arguments).run
        grid = len(GRID) if algorithm == "grid" else 1
        return cls(lane, algorithm, run, ledger, every, steps, int(experiment["num_samples"]) * grid)

    @property
    def total(self) -> int:
        """How many iterations all trials have, at the least: ASHA leaves out about a third."""
        return self.trials * self.steps // (2 if self.algorithm == "asha" else 1)

    @property
    def job_id(self) -> str:
        """The newest job."""
        return self.run.submissions()[-1].job_id

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> None:
        """Wait for something while the field is open; say what the run said when it does not come."""

        def checked() -> Any:
            assert not self.lane.field.closed.is_set(), "the tests have ended"
            return condition()

        try:
            wait_until(checked, what, seconds, 0.1)
        except SandboxError as error:
            raise AssertionError(f"{error.message}\n{self.logs()}") from None

    def at_random_instant(self, *, earliest: float = 0.15, latest: float = 0.5) -> None:
        """Wait until a random part of the search is done, and enough is left; remember which trials were over."""
        begin, left = self.ledger.count(), self.total - self.ledger.count()
        due = begin + 1 + int(left * self.lane.random.uniform(earliest, latest))
        self.wait(lambda: self.ledger.count() >= due or self.outcome(), f"{due} iterations")
        assert self.outcome() is None, f"the attempt ended by itself: {self.outcome()}\n{self.logs()}"
        short_pause(self.lane.random.uniform(0, ITERATION))
        self.note_finished()

    def note_finished(self) -> None:
        """Remember which trials are over, as the run's own records say."""
        trials, _ = read_trials(self.run.storage, live=True)
        counts = self.ledger.of_trials()
        self.finished |= {each.trial_id: counts[each.trial_id] for each in trials if each.status == "TERMINATED"}

    def outcome(self) -> Outcome | None:
        """Return how the newest attempt ended."""
        attempts = self.run.attempts()
        return attempts[-1].outcome() if attempts else None

    def live_jobs(self) -> list[str]:
        """Return the states of this run's jobs that wait or run; Slurm's silence counts as one."""
        jobs = ",".join(each.job_id for each in self.run.submissions())
        asked = ["squeue", "--noheader", "--states=all", f"--jobs={jobs}", "--format=%T"]
        done = self.lane.field.login.call(asked)
        return [state for state in done.stdout.split() if state in LIVE] if done.returncode == 0 else ["SILENT"]

    def wait_for_attempt(self, number: int, seconds: float = SECONDS) -> None:
        """Wait until an attempt has begun."""
        self.wait(lambda: len(self.run.attempts()) >= number, f"attempt {number} of {self.run.name}", seconds)

    def wait_for_end(self, ending: str = "completed", seconds: float = SECONDS) -> Outcome:
        """Wait until nothing more happens by itself, and check how it ended."""
        self.wait(lambda: not self.live_jobs(), f"the end of {self.run.name}", seconds)
        outcome = self.outcome()
        assert outcome is not None, self.logs()
        assert outcome.ending == ending, f"{outcome}\n{self.logs()}"
        return outcome

    def newest_checkpoint(self) -> Path:
        """Return the checkpoint that a trial which is not over goes on from: the last that one of its results names."""
        for log in self.run.storage.glob("*/result.json"):
            results = [json.loads(line) for line in log.read_text().splitlines()]
            names = [result["checkpoint_dir_name"] for result in results if result["checkpoint_dir_name"]]
            if names and log.parent.name not in self.finished and not results[-1]["done"]:
                return log.parent / str(names[-1])
        raise AssertionError(f"no trial that is not over has a checkpoint\n{self.logs()}")

    def scancel(self) -> None:
        """End the run's jobs as somebody does who knows Slurm alone, and wait until they are gone."""
        for each in self.run.submissions():
            self.lane.slurm("scancel", each.job_id)
        self.wait(lambda: not self.live_jobs(), "the end of the cancelled job")

    def signal_walltime(self) -> None:
        """Do what Slurm does when the walltime is near."""
        self.lane.slurm("scancel", "--batch", "--signal=USR1", self.job_id)

    def resume(self, *arguments: str | Path) -> str:
        """Type ``hpc-tune resume``; return what it said."""
        return self.lane.field.login.hpc_tune("resume", self.run.path, *arguments).stdout

    def table(self, name: str) -> list[dict[str, str]]:
        return read_rows(self.run.path / f"{name}.csv")

    def judge(self, fault: str, *, allowed: int) -> Row:
        """Put a line into the table and check it.

        Args:
            fault: what happened.
            allowed: how many iterations a trial that was running may have repeated, over all faults.
        """
        trials = self.table("trials")
        complete = [row for row in trials if self._is_complete(row)]
        counts = self.ledger.of_trials()
        row = Row(
            fault=fault,
            search=self.algorithm,
            attempts=len(self.run.attempts()),
            lost=self.trials - len(complete),
            again=sum(counts[trial] != count for trial, count in self.finished.items()),
            repeated=max(self.ledger.repeated().values(), default=0),
            allowed=allowed,
            different=self._different(trials),
        )
        self.lane.field.rows.append(row)
        assert len(trials) == self.trials, f"{[each['trial_id'] for each in trials]}\n{self.logs()}"
        assert (row.lost, row.again, row.different or 0) == (0, 0, 0), f"{row}\n{trials}\n{self.logs()}"
        assert row.repeated <= allowed, f"{row}\n{self.ledger.repeated()}\n{self.logs()}"
        self._check_history(trials)
        return row

    def _is_complete(self, trial: dict[str, str]) -> bool:
        stops_early = self.algorithm == "asha"
        return trial["status"] == "TERMINATED" and (stops_early or int(trial["iterations"]) == self.steps)

    def _different(self, trials: list[dict[str, str]]) -> int | None:
        """Count the results that a search without faults does not have."""
        if self.algorithm not in ("grid", "random"):
            return None
        expected = self.lane.field.expected(self.algorithm, self.steps)
        found = {float(row["config/lr"]): float(row["score"] or "nan") for row in trials}
        return sum(found.get(lr) != score for lr, score in expected.items()) + len(found.keys() - expected.keys())

    def _check_history(self, trials: list[dict[str, str]]) -> None:
        """Check that each trial's iterations are there once, and each one's step follows the one before."""
        rates = {row["trial_id"]: float(row["config/lr"]) for row in trials}
        iterations = {row["trial_id"]: int(row["iterations"]) for row in trials}
        history = self.table("history")
        found = sorted((row["trial_id"], int(row["training_iteration"])) for row in history)
        wanted = sorted((trial, n) for trial, last in iterations.items() for n in range(1, last + 1))
        assert found == wanted, f"{sorted(set(wanted) - set(found))} are missing\n{self.results()}\n{self.logs()}"
        for row in history:
            step = int(row["training_iteration"])
            assert int(row["step"]) == step, f"{row}: an iteration was left out, or done twice"
            if self.algorithm != "pbt":  # whose members go on with others' scores
                assert float(row["score"]) == score_of(rates[row["trial_id"]], step), row
        if self.algorithm == "optuna":
            assert len(set(rates.values())) == self.trials, f"a config was asked twice: {rates}"

    def results(self) -> str:
        """Return what the trials reported, as their logs have it, for a failed test's message."""
        return "\n".join(f"--- {path}\n{path.read_text()}" for path in sorted(self.run.storage.glob("*/result.json")))

    def job_logs(self) -> str:
        """Return what the batch scripts said."""
        return "".join(path.read_text() for path in self.run.jobs_dir.glob("*.log"))

    def logs(self) -> str:
        """Return all that the run has said, for a failed test's message."""
        paths = [*sorted(self.run.jobs_dir.glob("*.log")), *sorted(self.run.path.glob("attempts/*/nodes/*.log"))]
        paths += sorted(self.run.path.glob("attempts/*/driver.log"))
        paths += sorted(self.run.path.glob("attempts/*/outcome.json"))
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-12000:]}" for path in paths)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def seed_of_session() -> int:
    """Return the seed of the random instants: drawn, or given to repeat a session."""
    given = os.environ.get("HPC_TUNE_FAULT_SEED")
    return int(given) if given else random.SystemRandom().randrange(10**6)
