"""Interrupted searches go on: nothing finished is trained again, nothing is left out."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.ray.conftest import Search, wait_until
from tests.unit.test_tfevents import read_scalars

pytestmark = pytest.mark.ray

PBT = Path(__file__).parents[2] / "experiments" / "fashion_mnist" / "pbt.toml"

LEDGER = """
import json, tempfile, time
from pathlib import Path
from ray import tune

def train(config):
    checkpoint = tune.get_checkpoint()
    state = json.loads(Path(checkpoint.path, "state.json").read_text()) if checkpoint else {"step": 0, "score": 0.0}
    trial = tune.get_context().get_trial_id()
    for step in range(state["step"], 6):
        time.sleep(0.3)
        with open(config["ledger"], "a") as ledger:
            ledger.write(f"{trial} {step}\\n")
        state = {"step": step + 1, "score": state["score"] * 1.5 + config["lr"] * step}
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "state.json").write_text(json.dumps(state))
            tune.report({"score": state["score"]}, checkpoint=tune.Checkpoint.from_directory(folder))
"""


def _write_ledger_search(search: Search, **experiment: object) -> Path:
    ledger = search.folder / "ledger"
    base = {"space": {"lr": {"uniform": [1, 2]}, "ledger": str(ledger)}, "num_samples": 6, "seed": 11}
    search.write(LEDGER, base | experiment)
    return ledger


CLASS = """
import json
from pathlib import Path
from ray import tune

class Steps(tune.Trainable):
    def setup(self, config):
        self.done = 0

    def step(self):
        import time
        time.sleep(0.1)
        with open(self.config["ledger"], "a") as ledger:
            ledger.write(f"{self.trial_id} {self.done}\\n")
        self.done += 1
        return {"score": self.done}

    def save_checkpoint(self, folder):
        Path(folder, "done.json").write_text(json.dumps(self.done))

    def load_checkpoint(self, folder):
        self.done = json.loads(Path(folder, "done.json").read_text())
"""


def _ledger(path: Path) -> Counter[str]:
    return Counter(path.read_text().splitlines()) if path.exists() else Counter()


@pytest.mark.parametrize(
    ("number", "to_driver"), [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGKILL, True)], ids=str
)
def test_an_interrupted_search_ends_as_if_it_had_not_been(search: Search, number: int, to_driver: bool) -> None:
    ledger = _write_ledger_search(search)
    process = search.start("run", "search.json")
    wait_until(lambda: sum(_ledger(ledger).values()) >= 16, what="the third pair of trials")
    os.kill(search.driver_of(process) if to_driver else process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert f"hpc-tune resume {search.directory}" in output
    finished = {row["trial_id"] for row in search.table() if row["status"] == "TERMINATED"}
    assert finished, "some trials were over, and are on record at once"
    search.call("resume")
    repeated = {line.split()[0]: count for line, count in _ledger(ledger).items() if count > 1}
    assert not finished & set(repeated), "a finished trial was trained again"
    assert all(count == 2 for count in repeated.values())
    assert len(repeated) <= 2, "at most the iterations in flight are done again"
    history = [(row["trial_id"], int(row["training_iteration"])) for row in search.table("history")]
    trials = {row["trial_id"] for row in search.table()}
    assert len(trials) == 6
    assert sorted(history) == sorted((trial, step) for trial in trials for step in range(1, 7))
    for row in search.table():
        score = 0.0
        for step in range(6):
            score = score * 1.5 + float(row["config/lr"]) * step
        assert float(row["score"]) == pytest.approx(score), "every step was done once, in order"
        events = sorted((search.directory / "storage" / row["trial_id"]).glob("events.out.tfevents.*"))
        told = dict(point for path in events for point in read_scalars(path)["ray/tune/score"])
        assert sorted(told) == [1, 2, 3, 4, 5, 6], "TensorBoard's events go on in a file of the next attempt"
        assert told[6] == pytest.approx(score)


def _commands_of_children(parent: int) -> list[str]:
    listed = (path.read_text().split() for path in Path(f"/proc/{parent}/task").glob("*/children"))
    return [Path(f"/proc/{child}/cmdline").read_text() for children in listed for child in children]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_an_interrupt_while_ray_starts_is_no_failure(search: Search, number: int) -> None:
    _write_ledger_search(search)
    process = search.start("run", "search.json")

    def ray_begins() -> bool:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return any("gcs_server" in command for child in children for command in _commands_of_children(int(child)))

    wait_until(ray_begins, what="Ray's first process")
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "interrupted: a signal came" in output
    assert f"continue with: hpc-tune resume {search.directory}" in output


def test_a_class_goes_on_from_its_newest_checkpoint(search: Search) -> None:
    """Its checkpoints come after the results that they belong to, and many more of them than states are saved."""
    ledger = search.folder / "ledger"
    experiment = {"stop": {"training_iteration": 60}, "checkpoint": {"every": 2, "keep": 1}, "num_samples": 2}
    search.write(CLASS, experiment | {"trainable": "train.py:Steps", "space": {"ledger": str(ledger)}})
    process = search.start("run", "search.json")
    wait_until(lambda: sum(_ledger(ledger).values()) >= 70, what="half of the search")
    search.kill_driver(process, signal.SIGKILL)
    search.call("resume")
    repeated = Counter(line.split()[0] for line, count in _ledger(ledger).items() if count > 1)
    assert max(repeated.values(), default=0) <= 2 + 1, "an interval, and what was in flight"
    assert [row["iterations"] for row in search.table()] == ["60"] * 2
    assert len(_ledger(ledger)) == 120


def test_a_driver_killed_at_the_first_trial_leaves_nothing_behind(search: Search) -> None:
    """Optuna draws its trials' ids and configs by chance: what has begun must be on record before it begins."""
    ledger = _write_ledger_search(search, searcher={"name": "optuna"}, num_samples=3)
    process = search.start("run", "search.json")
    wait_until(lambda: any(search.runs_dir.glob("*/storage/*/params.json")), what="the first trial")
    search.kill_driver(process, signal.SIGKILL)
    begun = {path.parent.name for path in search.directory.glob("storage/*/params.json")}
    assert sum(_ledger(ledger).values()) < 6, "no trial has ended"
    search.call("resume")
    trials = {row["trial_id"] for row in search.table()}
    assert {row["iterations"] for row in search.table()} == {"6"}
    assert len(trials) == 3
    assert begun <= trials
    assert {path.name for path in search.directory.glob("storage/*/")} == trials


def test_a_second_interrupt_ends_at_once(search: Search) -> None:
    search.write("import time\ndef train(config):\n    time.sleep(600)\n", {})
    process = search.start("run", "search.json")
    wait_until(lambda: "starting Ray" in (process.stdout.readline() if process.stdout else ""), what="the start")
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 1


def test_a_live_run_is_not_resumed_and_may_be_collected(search: Search) -> None:
    ledger = _write_ledger_search(search)
    process = search.start("run", "search.json")
    wait_until(lambda: sum(_ledger(ledger).values()) >= 3, what="the first results")
    output = search.call("resume", exit_code=3)
    assert "is live: process" in output
    search.call("collect")
    assert {row["status"] for row in search.table()} >= {"RUNNING"}
    process.communicate(timeout=120)
    assert process.returncode == 0


def test_a_changed_experiment_is_refused_and_its_source_may_change(search: Search) -> None:
    ledger = _write_ledger_search(search)
    process = search.start("run", "search.json")
    wait_until(lambda: sum(_ledger(ledger).values()) >= 2, what="the first results")
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    copy = search.directory / "experiment.json"
    original = copy.read_text()
    changed = json.loads(original)
    changed["space"]["lr"] = {"uniform": [1, 3]}
    copy.write_text(json.dumps(changed))
    output = search.call("resume", exit_code=1)
    assert "space.lr.uniform was [1, 2], is [1, 3]" in output
    copy.write_text(original)
    (search.folder / "search.json").write_text(json.dumps(changed))
    output = search.call("resume")
    assert "has been edited since (space.lr.uniform); this run goes on as it began" in output
    assert "is complete" in search.call("resume", exit_code=1)


def test_a_run_whose_trials_all_failed_starts_them_again_when_asked(search: Search) -> None:
    search.write(
        """
from pathlib import Path
from ray import tune

def train(config):
    if not Path(config["repaired"]).exists():
        raise RuntimeError("not yet")
    tune.report({"score": 1})
""",
        {"space": {"repaired": str(search.folder / "repaired"), "n": {"grid": [1, 2]}}},
    )
    assert "all 2 trials failed" in search.run(exit_code=5)
    (search.folder / "repaired").touch()
    search.call("resume", "--retry-errors")
    assert [row["status"] for row in search.table()] == ["TERMINATED"] * 2


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_stops_cleanly_and_the_run_goes_on_after_making_room(search: Search) -> None:
    import subprocess

    ledger = _write_ledger_search(search)
    search.runs_dir.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(search.runs_dir)], check=True)
    try:
        process = search.start("run", "search.json")
        wait_until(lambda: sum(_ledger(ledger).values()) >= 4, what="the first results")
        ballast = search.runs_dir / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 1, output
        assert "o space" in output, "No space left on device, or no space is left"
        assert "Traceback" not in output
        ballast.unlink()
        (directory,) = search.runs_dir.iterdir()
        search.call("resume", str(directory))
        assert [row["iterations"] for row in search.table()] == ["6"] * 6
    finally:
        subprocess.run(["umount", "--lazy", str(search.runs_dir)], check=True)


def test_a_quota_that_is_used_up_ends_the_search_and_is_named(search: Search) -> None:
    search.write(
        """
import errno, os
from pathlib import Path

def train(config):
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(Path.cwd() / "checkpoint_000000"))
""",
        {"num_samples": 2},
    )
    assert "failed: the quota on " in search.run(exit_code=1)
    assert "ERROR" not in {row["status"] for row in search.table()}, "no trial is to blame"


@pytest.mark.experiment
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
def test_pbt_on_fashion_mnist_survives(search: Search, number: int) -> None:
    search.folder.mkdir()
    process = search.start("run", str(PBT))
    wait_until(lambda: search.reported() >= 14, seconds=180, what="the second generation")
    search.kill_driver(process, number)
    search.call("resume")
    history = Counter(row["trial_id"] for row in search.table("history"))
    assert list(history.values()) == [10] * 4
    assert len({(row["trial_id"], row["training_iteration"]) for row in search.table("history")}) == 40
