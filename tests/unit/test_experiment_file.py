"""Experiment files in three formats, ``--set``, and what a user reads when a file is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.errors import ExperimentError, UsageError
from hpc_tune.experiment.load import load_experiment, parse_override
from hpc_tune.experiment.space import Domain

TOML = """\
name = "digits"
trainable = "train.py:train"
data = "train.py:load_data"
metric = "accuracy"
mode = "max"
num_samples = 3
time_budget = "1h30m"

[space]
epochs = 10
lr = { loguniform = [1e-4, 1e-1] }
layers = { grid = [1, 2, 3] }
sizes = [32, 64]

[space.optimizer]
name = "sgd"
momentum = { choice = [0.8, 0.9] }

[trial_scheduler]
name = "asha"
max_t = 10

[stop]
accuracy = 0.99

[trial]
cpus = 2
gpus = 0.5
gpu_optional = true

[allocation]
nodes = 4
time = "02:00:00"
"""

JSON = {
    "mode": "max",
    "metric": "accuracy",
    "data": "train.py:load_data",
    "trainable": "train.py:train",
    "name": "digits",
    "time_budget": 5400,
    "num_samples": 3,
    "allocation": {"time": "2h", "nodes": 4},
    "trial": {"gpu_optional": True, "gpus": 0.5, "cpus": 2},
    "stop": {"accuracy": 0.99},
    "trial_scheduler": {"max_t": 10, "name": "asha"},
    "space": {
        "sizes": [32, 64],
        "optimizer": {"momentum": {"choice": [0.8, 0.9]}, "name": "sgd"},
        "layers": {"grid": [1, 2, 3]},
        "lr": {"loguniform": [0.0001, 0.1]},
        "epochs": 10,
    },
}

PYTHON = f"from hpc_tune import Experiment\n\nexperiment = Experiment(**{JSON!r})\n"


def write_all(project: Any) -> list[Path]:
    return [
        project.write("search.toml", TOML),
        project.write("search.json", json.dumps(JSON)),
        project.write("search.py", PYTHON),
    ]


# ------------------------------------------------------------------------------- the three formats


def test_the_three_formats_say_the_same(project: Any) -> None:
    first, second, third = (load_experiment(path).experiment.as_json() for path in write_all(project))
    assert first == second == third
    assert first["space"]["optimizer"] == {"name": "sgd", "momentum": {"choice": [0.8, 0.9]}}
    assert first["time_budget"] == 5400
    assert first["allocation"]["time"] == 7200


def test_what_a_file_says_reaches_the_experiment(project: Any) -> None:
    loaded = load_experiment(project.write("search.toml", TOML))
    space = loaded.experiment.space
    assert loaded.folder == project.path
    assert space["epochs"] == 10
    assert space["lr"] == Domain("loguniform", (1e-4, 1e-1))
    assert space["optimizer"]["momentum"] == Domain("choice", (0.8, 0.9))
    assert space["sizes"] == [32, 64]
    assert loaded.experiment.trial.gpu_optional
    assert loaded.experiment.trial_scheduler.options()["max_t"] == 10


def test_a_grid_multiplies_the_samples(project: Any) -> None:
    space = {"a": {"grid": [1, 2, 3]}, "b": {"c": {"grid_search": [1, 2]}}, "d": {"choice": [1, 2]}}
    assert project.load(num_samples=5, space=space).experiment.total_trials == 30


def test_the_shortest_file_is_enough(project: Any) -> None:
    experiment = project.load().experiment
    assert (experiment.num_samples, experiment.searcher.name, experiment.trial_scheduler.name) == (1, "random", "fifo")
    assert (experiment.trial.cpus, experiment.trial.gpus, experiment.checkpoint.keep) == (1, 0, 2)


def test_a_python_file_may_hold_functions_and_objects(project: Any) -> None:
    source = """
from hpc_tune import Experiment

class Searcher:
    def suggest(self, trial_id): ...

class Scheduler:
    def on_trial_result(self, *args): ...

def train(config): ...

experiment = Experiment(name="x", trainable=train, data=lambda: 1, metric="a", mode="min",
                        searcher=Searcher(), trial_scheduler=Scheduler(), space={"f": train})
"""
    experiment = load_experiment(project.write("objects.py", source)).experiment
    assert callable(experiment.trainable)
    assert callable(experiment.data)
    assert experiment.space["f"] is experiment.trainable
    plain = experiment.as_json()
    assert plain["trainable"] == "<objects.train>"
    assert plain["searcher"] == "<objects.Searcher>"
    json.dumps(plain)


def test_a_python_file_may_import_its_neighbours(project: Any) -> None:
    project.write("mylib_of_neighbours.py", "def train(config): ...\n")
    source = "from mylib_of_neighbours import train\nfrom hpc_tune import Experiment\n"
    source += "experiment = Experiment(name='x', trainable=train, metric='a', mode='min')\n"
    assert callable(load_experiment(project.write("with_neighbour.py", source)).experiment.trainable)


@pytest.mark.parametrize("folder", ["with spaces", "ünïcode", 'quote\'s "both"'])
def test_a_folder_may_have_any_name(project: Any, folder: str) -> None:
    project.write(f"{folder}/train.py", "def train(config): ...\ndef load_data(): ...\n")
    for name, text in (("s.toml", TOML), ("s.json", json.dumps(JSON)), ("any_name.py", PYTHON)):
        assert load_experiment(project.write(f"{folder}/{name}", text)).experiment.name == "digits"


def test_a_byte_order_mark_is_no_fault(project: Any) -> None:
    (project.path / "train.py").write_bytes(b"\xef\xbb\xbfdef train(config): ...\ndef load_data(): ...\n")
    for name, text in (("s.toml", TOML), ("s.json", json.dumps(JSON))):
        path = project.path / name
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert load_experiment(path).experiment.name == "digits"


# ------------------------------------------------------------------------------- --set


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a = 0.5", 0.5),
        ("a=true", True),
        ("a=max", "max"),
        ("a='max'", "max"),
        ("a=[1, 2]", [1, 2]),
        ("a={loguniform=[1e-4, 1]}", {"loguniform": [1e-4, 1]}),
        ("a=", ""),
        ("a=x=y", "x=y"),
        ("a=train.py:train", "train.py:train"),
        ("a=1h30m", "1h30m"),
    ],
)
def test_a_value_is_toml_or_else_text(text: str, value: Any) -> None:
    key, parsed = parse_override(text)
    assert key == ["a"]
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize("text", ["", "x", "=1", " =1", "space..lr=1", ".lr=1", "space.=1"])
def test_an_override_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_override(text)
    assert caught.value.message == f"--set {text}: expected KEY=VALUE"
    assert caught.value.hint == "for example --set space.lr=0.01"


@pytest.mark.parametrize("index", [0, 1, 2], ids=["toml", "json", "py"])
def test_set_reaches_any_key_of_any_format(project: Any, index: int) -> None:
    overrides = [
        "num_samples=7",
        "mode=min",
        "space.epochs=3",
        "space.optimizer.momentum=0.5",
        "space.new.deep={uniform=[0, 1]}",
        "trial.cpus=4",
        "trial_scheduler.grace_period=5",
        "searcher.name=random",
        "checkpoint.keep=9",
    ]
    experiment = load_experiment(write_all(project)[index], overrides).experiment
    assert (experiment.num_samples, experiment.mode, experiment.space["epochs"]) == (7, "min", 3)
    assert experiment.space["optimizer"] == {"name": "sgd", "momentum": 0.5}
    assert experiment.space["new"]["deep"] == Domain("uniform", (0, 1))
    assert experiment.space["lr"] == Domain("loguniform", (1e-4, 1e-1))
    assert (experiment.trial.cpus, experiment.trial.gpus) == (4, 0.5)
    assert experiment.trial_scheduler.options()["max_t"] == 10
    assert experiment.trial_scheduler.options()["grace_period"] == 5
    assert experiment.checkpoint.keep == 9


def test_the_last_override_wins(project: Any) -> None:
    assert project.load("num_samples=2", "num_samples=3").experiment.num_samples == 3


def test_an_override_leaves_a_python_files_own_object_alone(project: Any) -> None:
    path = project.write("search.py", PYTHON)
    assert load_experiment(path, ["space.optimizer.name=adam"]).experiment.space["optimizer"]["name"] == "adam"
    assert load_experiment(path).experiment.space["optimizer"]["name"] == "sgd"


def test_an_override_below_a_value_is_refused(project: Any) -> None:
    fault = project.faults(overrides=("space.lr.x=1",), space={"lr": 0.1})
    assert fault == {"space.lr.x": "space.lr.x: cannot be set: space.lr is 0.1, not a table"}


@pytest.mark.parametrize(
    ("override", "key", "sentence"),
    [
        ("numsamples=3", "numsamples", "unknown key; did you mean 'num_samples'?"),
        ("trial.cpu=2", "trial.cpu", "unknown key; did you mean 'cpus'?"),
        ("space.lr={unifrom=[0,1]}", "space.lr", "unknown domain 'unifrom'; did you mean 'uniform'?"),
        ("searcher=optuna", "searcher", "expected a table with a name, got 'optuna'"),
        ("trainable=train.py:trian", "trainable", "defines no 'trian'; did you mean 'train'?"),
    ],
)
def test_a_wrong_override_is_a_fault_like_any_other(project: Any, override: str, key: str, sentence: str) -> None:
    faults = project.faults(overrides=(override,))
    assert list(faults) == [key]
    assert sentence in faults[key]


# ------------------------------------------------------------------------------- faults


def test_all_faults_come_in_one_answer(project: Any) -> None:
    path = project.json(
        "metric",
        mode="maximum",
        num_sample=3,
        time_budget="soon",
        trainable="train.py:trian",
        data="trian.py:load_data",
        evaluate="train.py:evalute",
        space={"lr": {"uniform": [1, 0]}, "deep": {"wd": {"loguniform": [0, 1]}}},
        searcher={"name": "optunna"},
        trial_scheduler={"name": "asha", "max": 3},
        trial={"gpu": 1, "cpus": 0},
    )
    with pytest.raises(ExperimentError) as caught:
        load_experiment(path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: 13 faults"
    assert {line.split(": ")[0].strip() for line in lines[1:]} == {
        *("metric", "mode", "num_sample", "time_budget", "trainable", "data", "evaluate", "space.lr", "space.deep.wd"),
        *("searcher.name", "trial_scheduler.max", "trial.gpu", "trial.cpus"),
    }
    assert caught.value.exit_code == 2


def test_one_fault_is_singular(project: Any) -> None:
    with pytest.raises(ExperimentError, match=r": 1 fault\n"):
        project.load(mode="up")


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("name", 'is missing; write name = "my-search"'),
        ("trainable", 'is missing; write trainable = "train.py:train"'),
        ("metric", 'is missing; write metric = "mean_accuracy", a name that the trainable reports'),
        ("mode", 'is missing; write mode = "max", or "min"'),
    ],
)
def test_a_missing_key_comes_with_an_example(project: Any, key: str, advice: str) -> None:
    assert project.faults(key) == {key: f"{key}: {advice}"}


@pytest.mark.parametrize(
    ("changes", "key", "sentence"),
    [
        ({"mode": "maximise"}, "mode", "expected 'min' or 'max', got 'maximise'"),
        ({"num_samples": 0}, "num_samples", "got 0"),
        ({"num_samples": -1}, "num_samples", "got -1"),
        ({"num_samples": 2.5}, "num_samples", "got 2.5"),
        ({"name": "a b"}, "name", "expected letters, digits, '.', '_' or '-' (64 at most), got 'a b'"),
        ({"name": "../x"}, "name", "got '../x'"),
        ({"name": "-x"}, "name", "got '-x'"),
        ({"name": "x" * 65}, "name", "64 at most"),
        ({"seed": -1}, "seed", "got -1"),
        ({"trial": {"gpus": 1.5}}, "trial.gpus", "fractions of a GPU must be below 1, above it whole numbers"),
        ({"trial": {"cpus": 0}}, "trial.cpus", "expected greater than 0, got 0"),
        ({"checkpoint": {"keep": 0}}, "checkpoint.keep", "got 0"),
        ({"allocation": {"nodes": 0}}, "allocation.nodes", "got 0"),
        ({"allocation": {"gpu_per_node": 1}}, "allocation.gpu_per_node", "did you mean 'gpus_per_node'?"),
        ({"stop": {"accuracy": "high"}}, "stop.accuracy", "got 'high'"),
        ({"space": 5}, "space", "got 5"),
        ({"zzz": 1}, "zzz", "unknown key; known: allocation, checkpoint, data"),
        ({"trainable": "train.py"}, "trainable", 'expected "file.py:name" or "package.module:name", got \'train.py\''),
        ({"trainable": 5}, "trainable", 'expected "file.py:name" or "package.module:name", got 5'),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(
    project: Any, changes: dict[str, Any], key: str, sentence: str
) -> None:
    faults = project.faults(**changes)
    assert list(faults) == [key]
    assert sentence in faults[key]


@pytest.mark.parametrize(
    ("section", "table", "key", "sentence"),
    [
        ("searcher", {"name": "optunna"}, "name", "unknown name 'optunna'; did you mean 'optuna'?"),
        ("searcher", {"name": "zzz"}, "name", "unknown name 'zzz'; known: hyperopt, optuna, random"),
        ("searcher", {"n_initial_points": 3}, "name", "is missing; known: hyperopt, optuna, random"),
        ("searcher", {"name": "hyperopt", "n_initial": 3}, "n_initial", "did you mean 'n_initial_points'?"),
        ("searcher", {"name": "hyperopt", "gamma": 2}, "gamma", "expected less than 1, got 2"),
        ("trial_scheduler", {"name": "asah"}, "name", "unknown name 'asah'; did you mean 'asha'?"),
        (
            "trial_scheduler",
            {"name": "asha", "grace_perod": 2},
            "grace_perod",
            "unknown key; did you mean 'grace_period'?",
        ),
        ("trial_scheduler", {"name": "asha", "reduction_factor": 1}, "reduction_factor", "expected greater than 1"),
        (
            "trial_scheduler",
            {"name": "pbt", "perturbation_interval": 1, "hyperparam_mutations": {"lr": {"uniform": [1, 0]}}},
            "hyperparam_mutations.lr",
            "uniform: bounds are the wrong way round; write [0, 1]",
        ),
        (
            "trial_scheduler",
            {"name": "pbt", "perturbation_interval": 1, "hyperparam_mutations": {}},
            "hyperparam_mutations",
            "expected at least one hyperparameter to mutate",
        ),
        (
            "trial_scheduler",
            {"name": "pbt", "perturbation_interval": 1, "hyperparam_mutations": {"lr": 3}},
            "hyperparam_mutations.lr",
            "expected a domain, or a list of values to choose from, got 3",
        ),
        (
            "trial_scheduler",
            {"name": "asha", "max_t": 1, "grace_period": 5},
            "grace_period",
            "expected at most max_t = 1, got 5",
        ),
        ("trial_scheduler", {"name": "pbt", "hyperparam_mutations": {"a": [1]}}, "perturbation_interval", "is missing"),
    ],
)
def test_algorithms_and_their_options_are_checked(
    project: Any, section: str, table: dict[str, Any], key: str, sentence: str
) -> None:
    faults = project.faults(**{section: table})
    assert list(faults) == [f"{section}.{key}"]
    assert sentence in faults[f"{section}.{key}"]


def test_a_grid_with_a_searcher_is_refused(project: Any) -> None:
    space = {"deep": {"layers": {"grid": [1, 2]}}}
    (fault,) = project.faults(searcher={"name": "optuna"}, space=space).values()
    assert "space.deep.layers is a grid, which the searcher 'optuna' cannot search" in fault
    assert "write { choice = [...] }, or leave out [searcher]" in fault
    assert project.load(searcher={"name": "random"}, space=space).experiment.grid_size == 2


def test_a_grid_with_a_searcher_is_among_all_faults(project: Any) -> None:
    faults = project.faults("metric", searcher={"name": "optuna"}, space={"layers": {"grid": [1]}})
    assert len(faults) == 2


# ------------------------------------------------------------------------------- files that cannot be read


def faults_of(path: Path) -> list[str]:
    with pytest.raises(ExperimentError) as caught:
        load_experiment(path)
    assert caught.value.source == path
    return [str(fault) for fault in caught.value.faults]


def test_a_missing_file_names_its_nearest_neighbour(project: Any) -> None:
    project.write("asha.toml", TOML)
    (fault,) = faults_of(project.path / "ahsa.toml")
    assert fault == "there is no such file; did you mean 'asha.toml'?"


def test_a_missing_folder_is_no_riddle(project: Any) -> None:
    assert faults_of(project.path / "nowhere" / "asha.toml") == ["there is no such file"]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("x.toml", "name = \n", "is not valid TOML: Invalid value (at line 1, column 8)"),
        ("x.toml", "name = 'a'\nname = 'b'\n", "Cannot overwrite a value (at line 2"),
        ("x.json", '{"name": }', "is not valid JSON: Expecting value: line 1 column 10"),
        ("x.json", "[1, 2]", "expected an object with keys such as name, trainable, metric"),
        ("x.yaml", "name: a", "an experiment file ends in .toml, .json, .py"),
        ("x_empty.py", "", "experiment: is not defined; write experiment = Experiment(name=..., ...)"),
        ("x_other.py", "experiment = 5", "experiment: is not defined"),
        ("x_name.py", "import os\n\nexperiment = undefined_name\n", "x_name.py, line 3: NameError: name"),
        ("x_syntax.py", "x = 1\nif x\n", "x_syntax.py, line 2: SyntaxError: expected ':'"),
        ("x_exit.py", "import sys\n\nsys.exit(0)", "x_exit.py, line 3: SystemExit: 0"),
        ("x_lib.py", "import no_such_library", "install it with: pip install no_such_library"),
    ],
)
def test_an_unreadable_file_says_where(project: Any, name: str, text: str, sentence: str) -> None:
    (fault,) = faults_of(project.write(name, text))
    assert sentence in fault


def test_a_binary_file_and_a_folder_are_refused(project: Any) -> None:
    (project.path / "latin.toml").write_bytes(b'name = "caf\xe9"\n')
    (fault,) = faults_of(project.path / "latin.toml")
    assert "cannot be read: " in fault
    assert "can't decode byte 0xe9" in fault
    (project.path / "folder.toml").mkdir()
    (fault,) = faults_of(project.path / "folder.toml")
    assert "Is a directory" in fault


def test_a_wrong_experiment_in_python_lists_its_faults(project: Any) -> None:
    source = "from hpc_tune import Experiment\nexperiment = Experiment(name='a b', metric='m', mode='up', trainabel=1)"
    faults = faults_of(project.write("wrong_experiment.py", source))
    assert len(faults) == 4
    assert "trainabel: unknown key; did you mean 'trainable'?" in faults


def test_a_users_own_pydantic_model_is_not_taken_for_the_experiment(project: Any) -> None:
    source = """
from pydantic import BaseModel, ConfigDict

class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

class Settings(BaseModel):
    inner: Inner

Settings(inner={"oops": 1})
"""
    (fault,) = faults_of(project.write("own_model.py", source))
    assert fault.startswith("own_model.py, line 10: ValidationError: 1 validation error for Settings")


# ------------------------------------------------------------------------------- lengths of time


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90s", 90),
        ("1h30m", 5400),
        ("1h 30min", 5400),
        ("2d", 172800),
        ("1.5h", 5400),
        ("02:00:00", 7200),
        ("1-12:00:00", 129600),
        (90, 90),
        (0.5, 0.5),
        (" 5M ", 300),
    ],
)
def test_lengths_of_time(project: Any, written: Any, seconds: float) -> None:
    assert project.load(time_budget=written).experiment.time_budget == seconds


@pytest.mark.parametrize(
    "written",
    ["", "0s", "-5", "1h30", "30:00", "2 hours", "1m1h", "s", -1, 0, True, [1], float("inf"), float("nan")],
    ids=repr,
)
def test_bad_lengths_of_time(project: Any, written: Any) -> None:
    faults = project.faults(time_budget=written, allocation={"time": written})
    assert list(faults) == ["time_budget", "allocation.time"]
    assert f'expected a time such as "90s", "1h30m" or "02:00:00", got {written!r}' in faults["time_budget"]
