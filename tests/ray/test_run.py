"""`hpc-tune run` on a real Ray: forms of trainables, searchers, failures, isolation, results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.ray.conftest import Search, wait_until

pytestmark = pytest.mark.ray

BY_CONFIG = """
from ray import tune

def train(config):
    for step in range(1, 4):
        tune.report({"score": config["lr"] * step})
"""

WITH_DATA = """
import numpy as np
from ray import tune

def load():
    print("loading")
    return {"x": np.arange(1_000_000)}

def train(config, data):
    assert not data["x"].flags.writeable, "mapped from the object store, not copied"
    tune.report({"score": float(data["x"].sum()) * config["lr"]})
"""

BY_REPORTER = """
def train(config, reporter):
    for step in range(3):
        reporter(score=step, timesteps_total=10 * step)
"""

BY_CLASS = """
import json
from pathlib import Path
from ray import tune

class train(tune.Trainable):
    def setup(self, config):
        self.total = 0.0

    def step(self):
        self.total += self.config["lr"]
        print("step", self.iteration)
        return {"score": self.total}

    def save_checkpoint(self, folder):
        Path(folder, "total.json").write_text(json.dumps(self.total))

    def load_checkpoint(self, folder):
        self.total = json.loads(Path(folder, "total.json").read_text())

    def reset_config(self, config):
        self.config, self.total = config, 0.0
        return True
"""

UNIFORM = {"space": {"lr": {"uniform": [1, 2]}}, "num_samples": 3}


def test_a_function_runs_to_its_tables_and_leaves_nothing_else_behind(search: Search) -> None:
    search.write(BY_CONFIG, UNIFORM)
    with tempfile.TemporaryDirectory(prefix="ht-", dir="/tmp") as scratch:  # short enough for Ray's sockets
        search.environment["TMPDIR"] = scratch
        output = search.run("--set", "seed=1")
        assert list(Path(scratch).iterdir()) == []
    assert _processes_that_name(search.runs_dir) == []
    assert "completed: all trials have ended" in output
    trials = search.table()
    assert [trial["status"] for trial in trials] == ["TERMINATED"] * 3
    for trial in trials:
        assert float(trial["score"]) == pytest.approx(3 * float(trial["config/lr"]))
        folder = search.directory / "storage" / trial["trial_id"]
        names = sorted(path.name.partition(".tfevents")[0] for path in folder.iterdir())
        assert names == ["events.out", "params.json", "result.json"]  # inodes are a quota
    assert len(search.table("history")) == 9
    best = max(trials, key=lambda trial: float(trial["score"]))
    (summary,) = search.table("summary")
    assert summary["best_trial"] == best["trial_id"]
    assert f"trial {best['trial_id']}, iteration 3" in output


def test_the_same_seed_gives_the_same_search_also_as_json(search: Search) -> None:
    search.write(BY_CONFIG, UNIFORM)
    search.run("--set", "seed=7")
    first = [trial["config/lr"] for trial in search.table()]
    other = Search(search.folder / "again")
    other.write(BY_CONFIG, UNIFORM)
    record = json.loads(other.run("--set", "seed=7", "--json"))
    assert [trial["config/lr"] for trial in other.table()] == first
    assert len(set(first)) == 3
    assert (record["schema"], record["ending"], record["summary"]["terminated"]) == (1, "completed", 3)
    assert record["best"]["score"] == record["summary"]["best_value"]


def test_data_reaches_trials_through_the_object_store(search: Search) -> None:
    search.write(WITH_DATA, UNIFORM | {"data": "train.py:load"})
    search.run()
    assert len(search.table()) == 3
    log = next(search.directory.glob("attempts/001/driver.log")).read_text()
    assert log.count("loading\n") == 1


def test_the_older_reporter_form(search: Search) -> None:
    search.write(BY_REPORTER, {"num_samples": 2, "stop": {"timesteps_total": 10}})
    search.run()
    assert [trial["iterations"] for trial in search.table()] == ["2", "2"]
    assert {trial["score"] for trial in search.table()} <= {"1", "1.0"}


def test_a_trainable_class_with_checkpoints_and_stop_rule(search: Search) -> None:
    search.write(BY_CLASS, UNIFORM | {"stop": {"training_iteration": 4}, "checkpoint": {"keep": 1, "every": 2}})
    search.run()
    for trial in search.table():
        assert float(trial["score"]) == pytest.approx(4 * float(trial["config/lr"]))
        folder = search.directory / "storage" / trial["trial_id"]
        assert (search.directory / trial["checkpoint"]).is_dir()
        assert len(list(folder.glob("checkpoint_*"))) == 1
        assert (folder / "output.log").read_text().count("step") == 4


@pytest.mark.parametrize(
    ("experiment", "trials"),
    [
        pytest.param(
            {"searcher": {"name": "optuna"}, "trial_scheduler": {"name": "asha", "max_t": 3}}, 5, id="optuna-asha"
        ),
        pytest.param(
            {"searcher": {"name": "hyperopt"}, "trial_scheduler": {"name": "median_stopping"}}, 5, id="hyperopt-median"
        ),
        pytest.param(
            {"num_samples": 2, "space": {"lr": {"grid": [1, 2]}, "deep": {"units": {"choice": [8, 16]}}}},
            4,
            id="grid-nested",
        ),
    ],
)
def test_searchers_and_trial_schedulers(search: Search, experiment: dict[str, object], trials: int) -> None:
    search.write(BY_CONFIG, {"space": {"lr": {"uniform": [1, 2]}}, "num_samples": 5} | experiment)
    search.run()
    assert [trial["status"] for trial in search.table()] == ["TERMINATED"] * trials


def test_a_searcher_fills_all_slots(search: Search) -> None:
    """Tune asks a searcher for one trial at a time unless told otherwise."""
    search.write(
        """
import os, time
from pathlib import Path
from ray import tune

def train(config):
    together = Path(config["folder"])
    (together / f"{tune.get_context().get_trial_id()}").touch()
    deadline = time.monotonic() + 60
    while len(list(together.iterdir())) < 2:
        if time.monotonic() > deadline:
            raise RuntimeError("alone")
        time.sleep(0.05)
    tune.report({"score": 1})
""",
        {
            "searcher": {"name": "optuna"},
            "num_samples": 2,
            "space": {"lr": {"uniform": [1, 2]}, "folder": str(search.folder / "together")},
        },
    )
    (search.folder / "together").mkdir()
    search.run("--cpus", "2")
    assert [trial["status"] for trial in search.table()] == ["TERMINATED"] * 2


def test_failing_trials_take_only_themselves_down(search: Search) -> None:
    search.write(
        """
import os
from ray import tune

def train(config):
    if config["how"] == "raise":
        raise ValueError("lr too big")
    if config["how"] == "die":
        os._exit(3)
    tune.report({"score": 1.0})
""",
        {"space": {"how": {"grid": ["raise", "fine", "die", "well"]}}},
    )
    output = search.run("--cpus", "1")
    status = {trial["config/how"]: trial for trial in search.table()}
    assert status["fine"]["status"] == status["well"]["status"] == "TERMINATED"
    assert status["raise"]["status"] == status["die"]["status"] == "ERROR"
    assert status["raise"]["error"].startswith("ValueError: lr too big (train.py:7)")
    assert "2 finished, 2 failed" in output


def test_a_search_that_fails_does_not_stop_the_next(search: Search) -> None:
    search.write("def train(config):\n    raise ValueError('no data')\n" + BY_CONFIG.replace("train(", "good("), {})
    spec = json.loads((search.folder / "search.json").read_text()) | {"space": {"lr": 1}}
    (search.folder / "good.json").write_text(json.dumps(spec | {"name": "good", "trainable": "train.py:good"}))
    shown = json.loads(search.call("run", "search.json", "good.json", "--json", exit_code=5))["runs"]
    assert [(each["ending"], each["summary"]["terminated"]) for each in shown] == [("failed", 0), ("completed", 1)]
    assert shown[1]["best"]["best_value"] == 3
    assert len(list(search.runs_dir.iterdir())) == 2


def test_max_failures_starts_again_from_the_last_checkpoint(search: Search) -> None:
    search.write(
        """
import json, os, tempfile
from pathlib import Path
from ray import tune

def train(config):
    checkpoint = tune.get_checkpoint()
    start = json.loads(Path(checkpoint.path, "step.json").read_text()) if checkpoint else 0
    for step in range(start, 4):
        if step == 2 and start == 0:
            raise OSError("flaky")
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step.json").write_text(json.dumps(step + 1))
            tune.report({"score": step}, checkpoint=tune.Checkpoint.from_directory(folder))
""",
        {"trial": {"max_failures": 1}},
    )
    search.run()
    (trial,) = search.table()
    assert (trial["status"], trial["iterations"], trial["error"]) == ("TERMINATED", "4", "")


def test_a_metric_that_is_never_reported(search: Search) -> None:
    asha = {"name": "asha", "time_attr": "epoch"}
    search.write(BY_CONFIG, UNIFORM | {"metric": "scores", "stop": {"accuracy": 1}, "trial_scheduler": asha})
    output = search.run(exit_code=2)
    assert "metric: 'scores' is not among score; did you mean 'score'?" in output
    assert "stop.accuracy: 'accuracy' is not among score" in output
    assert "trial_scheduler.time_attr: 'epoch' is not among score" in output


def test_a_metric_that_is_no_number(search: Search) -> None:
    search.write("def train(config):\n    return {'score': float('nan')}\n", {"num_samples": 1})
    assert "hint: no result of this attempt has a number for score: one has nan" in search.run()
    assert "no result of this attempt has a number for score" in search.call("status")


def test_median_stopping_has_no_trial_begin_anew(search: Search) -> None:
    """Ray's makes trials wait while there are too few to compare with; one that saves nothing would lose all."""
    search.write(
        """
from ray import tune

def train(config):
    for step in range(6):
        with open(config["ledger"], "a") as ledger:
            ledger.write(f"{tune.get_context().get_trial_id()} {step}\\n")
        tune.report({"score": config["x"]})
""",
        {
            "space": {"x": {"uniform": [0, 1]}, "ledger": str(search.folder / "ledger")},
            "num_samples": 6,
            "trial_scheduler": {"name": "median_stopping", "grace_period": 1, "min_samples_required": 3},
        },
    )
    search.run()
    steps = (search.folder / "ledger").read_text().splitlines()
    assert len(steps) == len(set(steps))
    assert max(int(row["iterations"]) for row in search.table()) == 6


def test_an_import_error_of_the_trainable_is_shown_with_its_line(search: Search) -> None:
    search.write("import json\nimport no_such_package\n\ndef train(config):\n    pass\n", {})
    output = search.run(exit_code=2)
    assert "train.py, line 2: ModuleNotFoundError: No module named 'no_such_package'" in output
    assert "pip install no_such_package" in output


def test_a_trial_that_fits_no_machine_creates_no_run(search: Search) -> None:
    search.write(BY_CONFIG, UNIFORM | {"trial": {"cpus": 999, "gpus": 1}})
    output = search.run("--cpus", "2", exit_code=2)
    assert "trial.cpus: a trial needs 999 CPUs, this machine has 2; use --set trial.cpus=2" in output
    assert "gpu_optional=true" in output
    assert not search.runs_dir.exists()


def test_fractions_of_a_gpu_share_it(search: Search) -> None:
    search.write(
        """
import os
from ray import tune

def train(config):
    tune.report({"score": 1, "devices": os.environ["CUDA_VISIBLE_DEVICES"]})
""",
        {"num_samples": 3, "trial": {"cpus": 1, "gpus": 0.5}},
    )
    search.environment["CUDA_VISIBLE_DEVICES"] = "3"
    search.run("--cpus", "4", "--gpus", "1", "--set", "trial.reuse_workers=false")
    assert {trial["devices"] for trial in search.table()} == {"3"}


def test_reused_workers_start_each_trial_afresh(search: Search) -> None:
    search.write(
        """
import os, random
from ray import tune

def train(config):
    tune.report({"score": random.random(), "process": os.getpid(), "cwd": os.getcwd()})
    random.seed(0)
""",
        {"num_samples": 3, "seed": 5},
    )
    search.run("--cpus", "1")
    trials = search.table()
    assert len({trial["score"] for trial in trials}) == 3, "each trial has a seed of its own"
    assert [Path(trial["cwd"]).name for trial in trials] == [trial["trial_id"] for trial in trials]
    assert len({row["process"] for row in search.table("history")}) == 1


def test_short_trials_fill_every_slot(search: Search) -> None:
    search.write(
        """
import os, time
from ray import tune

time.sleep(os.getpid() % 4 / 2)  # processes come one by one, each long after another's first trials

def train(config):
    time.sleep(0.1)
    tune.report({"score": os.getpid()})
""",
        {"num_samples": 100},
    )
    search.run("--cpus", "4")
    assert len({row["score"] for row in search.table()}) == 4, "a slot stayed empty"


def test_a_time_budget_ends_the_search_well(search: Search) -> None:
    search.write(
        """
import time
from ray import tune

def train(config):
    while True:
        time.sleep(0.1)
        tune.report({"score": 1})
""",
        {"time_budget": "1s", "num_samples": 2},
    )
    assert "completed: the time budget of 1.0 s is used up" in search.run()


def test_a_python_experiment_may_use_any_object_of_ray_tune(search: Search) -> None:
    search.folder.mkdir()
    (search.folder / "search.py").write_text(
        """
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler
from hpc_tune import Experiment

def train(config):
    tune.report({"score": config["b"]})

experiment = Experiment(
    name="objects", trainable=train, metric="score", mode="max", num_samples=2,
    space={"a": tune.uniform(1, 2), "b": tune.sample_from(lambda config: config["a"] * 10), "c": {"choice": [1]}},
    trial_scheduler=AsyncHyperBandScheduler(max_t=2),
)
"""
    )
    search.call("run", "search.py", "--set", "num_samples=3")
    trials = search.table()
    assert len(trials) == 3
    for trial in trials:
        assert float(trial["score"]) == pytest.approx(10 * float(trial["config/a"]))


def test_nothing_outside_disturbs_a_run(search: Search, tmp_path: Path) -> None:
    """A stale token in the home, proxies, another Ray of the same user, and an address in the environment."""
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("stale" * 10)
    neighbour = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import ray, sys; ray.init(address='local', num_cpus=1, include_dashboard=False, _temp_dir=sys.argv[1]);"
            "print('up', flush=True); sys.stdin.read(); print(ray.cluster_resources()['CPU'], flush=True)",
            "/tmp/hpc-tune-neighbour",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
    )
    assert neighbour.stdout is not None
    assert neighbour.stdout.readline() == "up\n"
    search.environment |= {
        "HOME": str(home),
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "RAY_ADDRESS": "127.0.0.1:9",
        "RAY_AUTH_TOKEN": "wrong",
    }
    search.write(BY_CONFIG, UNIFORM)
    search.run()
    assert len(search.table()) == 3
    rest, _ = neighbour.communicate("")
    assert rest == "1.0\n", "the neighbour's Ray lives on"
    assert (search.directory / "attempts/001/token").stat().st_mode & 0o777 == 0o600
    assert search.directory.stat().st_mode & 0o777 == 0o700


def test_two_runs_of_the_same_second_in_an_odd_path(tmp_path: Path) -> None:
    odd = Search(tmp_path / 'it\'s a "path" with $(spaces)')
    odd.write(BY_CONFIG, UNIFORM)
    both = [odd.start("run", "search.json", "--cpus", "1") for _ in range(2)]
    for process in both:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
    runs = list(odd.runs_dir.iterdir())
    assert len(runs) == 2
    for run in runs:
        assert len((run / "trials.csv").read_text().splitlines()) == 4


def test_a_killed_driver_leaves_no_process(search: Search) -> None:
    search.write("import time\ndef train(config):\n    time.sleep(600)\n", {"num_samples": 2})
    process = search.start("run", "search.json")
    wait_until(lambda: "RUNNING" in _progress(search), what="a running trial")
    (driver,) = _children(process.pid)
    os.kill(driver, 9)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted: the driver was ended by SIGKILL" in output
    assert f"continue with: hpc-tune resume {search.directory}" in output
    assert _processes_of_session(driver) == []


def _progress(search: Search) -> dict[str, int]:
    for path in search.runs_dir.glob("*/attempts/001/progress.json"):
        states: dict[str, int] = json.loads(path.read_text())["states"]
        return states
    return {}


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _processes_that_name(path: Path) -> list[str]:
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = command.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(path) in text:
            found.append(text)
    return found


def _processes_of_session(session: int) -> list[str]:
    listed = subprocess.run(["ps", "-o", "args=", "-s", str(session)], capture_output=True, text=True, check=False)
    return [line for line in listed.stdout.splitlines() if "<defunct>" not in line]  # ended, for init to reap
