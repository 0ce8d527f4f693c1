"""Experiment files: what they may say, and how wrong ones are answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.errors import ExperimentError, UsageError
from hpc_tune.experiment.capacity import Node, fit_trial, slots, unfit
from hpc_tune.experiment.load import load_experiment
from hpc_tune.experiment.source import resolve
from hpc_tune.experiment.space import DOMAINS, Domain
from hpc_tune.experiment.spec import TrialResources, changed_keys, spec_hash

HEAD = 'name = "s"\ntrainable = "train.py:train"\nmetric = "acc"\nmode = "max"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("def train(config):\n    pass\n")
    return tmp_path


def _faults(folder: Path, text: str, *overrides: str) -> str:
    (folder / "s.toml").write_text(text)
    with pytest.raises(ExperimentError) as caught:
        load_experiment(folder / "s.toml", overrides)
    return caught.value.message


GOOD = {
    "uniform": [0, 1], "quniform": [0, 1, 0.1], "loguniform": [1e-4, 1], "qloguniform": [1e-4, 1, 1e-4],
    "randn": [0, 1], "qrandn": [0, 1, 0.1], "randint": [0, 9], "qrandint": [0, 9, 3], "lograndint": [1, 9],
    "qlograndint": [1, 9, 2], "choice": ["a", 2], "grid": [1, 2],
}  # fmt: skip


@pytest.mark.parametrize("kind", DOMAINS)
def test_each_domain_is_read_in_toml_and_json(folder: Path, kind: str) -> None:
    (folder / "s.toml").write_text(
        f"{HEAD}[space.inner]\nx = {{ {kind} = {json.dumps(GOOD[kind])} }}\nunits = [1, 2]\n"
    )
    space = load_experiment(folder / "s.toml").experiment.space
    assert space == {"inner": {"x": Domain(kind, tuple(GOOD[kind])), "units": [1, 2]}}
    spec = {"name": "s", "trainable": "train.py:train", "metric": "acc", "mode": "max"}
    (folder / "s.json").write_text(json.dumps(spec | {"space": {"inner": {"x": {kind: GOOD[kind]}, "units": [1, 2]}}}))
    assert load_experiment(folder / "s.json").experiment.space == space


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("{ uniform = [3, 1] }", "bounds are the wrong way round; write [1, 3]"),
        ("{ uniform = [1, 1] }", "bounds are equal; write the constant 1"),
        ("{ loguniform = [0, 1] }", "a logarithmic domain cannot reach 0"),
        ("{ randint = [0.5, 3] }", "bounds must be whole numbers"),
        ("{ quniform = [0, 1] }", "expected [lower, upper, q]"),
        ("{ quniform = [0, 1, 0] }", "the step q must be above 0"),
        ("{ choice = [] }", "expected at least one value"),
        ("{ uniform = 3 }", "uniform takes a list, got 3"),
        ("{ unifrom = [0, 1] }", "unknown domain 'unifrom'; did you mean 'uniform'?"),
    ],
)
def test_a_wrong_domain_is_named_with_its_key(folder: Path, written: str, answer: str) -> None:
    message = _faults(folder, f"{HEAD}[space]\nlr = {written}\n")
    assert "space.lr: " in message
    assert answer in message


def test_all_faults_come_in_one_answer(folder: Path) -> None:
    text = """
nam = "s"
trainable = "train.py:trian"
data = "dta.py:load"
metric = "acc"
mode = "maximum"
num_samples = 0
time_budget = "soon"
[searcher]
name = "optunna"
[trial_scheduler]
name = "asha"
max_tt = 3
[trial]
cpu = 1
gpus = 1.5
"""
    message = _faults(folder, text)
    for answer in (
        'name: is missing; write name = "my-search"',
        "nam: unknown key; did you mean 'name'?",
        "defines no 'trian'; did you mean 'train'?",
        "data: there is no file",
        "mode: expected 'min' or 'max', got 'maximum'",
        "num_samples: expected greater than or equal to 1, got 0",
        'time_budget: expected a time such as "90s"',
        "searcher.name: unknown name 'optunna'; did you mean 'optuna'?",
        "trial_scheduler.max_tt: unknown key; did you mean 'max_t'?",
        "trial.cpu: unknown key; did you mean 'cpus'?",
        "trial.gpus: fractions of a GPU must be below 1",
    ):
        assert answer in message


def test_a_grid_with_a_searcher_is_refused(folder: Path) -> None:
    message = _faults(folder, f'{HEAD}[space]\nn = {{ grid = [1, 2] }}\n[searcher]\nname = "optuna"\n')
    assert "space.n is a grid, which the searcher 'optuna' cannot search" in message


def test_errors_of_the_trainables_source_show_their_line(folder: Path) -> None:
    (folder / "train.py").write_text("x = 1\ndef train(config:\n    pass\n")
    assert "train.py, line 2" in _faults(folder, HEAD)
    (folder / "broken_import.py").write_text("\n\nimport nowhere_to_be_found\n")
    with pytest.raises(ExperimentError, match=r"broken_import\.py, line 3: ModuleNotFoundError"):
        resolve("broken_import.py:train", folder)


def test_overrides_reach_any_key(folder: Path) -> None:
    (folder / "s.toml").write_text(HEAD)
    overrides = ["space.lr={uniform=[0, 1]}", "num_samples=3", "space.deep.kind=text", "name=other"]
    experiment = load_experiment(folder / "s.toml", overrides).experiment
    assert experiment.space == {"lr": Domain("uniform", (0, 1)), "deep": {"kind": "text"}}
    assert (experiment.num_samples, experiment.name) == (3, "other")
    with pytest.raises(UsageError, match="expected KEY=VALUE"):
        load_experiment(folder / "s.toml", ["num_samples"])
    assert "cannot be set: metric is 'acc', not a table" in _faults(folder, HEAD, "metric.x=1")


def _spec(folder: Path, **change: Any) -> dict[str, Any]:
    base = {
        "name": "s",
        "trainable": "train.py:train",
        "metric": "acc",
        "mode": "max",
        "space": {"lr": {"uniform": [0, 1]}},
    }
    (folder / "s.json").write_text(json.dumps(base | change))
    return load_experiment(folder / "s.json").experiment.as_json()


def test_changes_of_the_search_are_named_and_others_do_not_count(folder: Path) -> None:
    before = _spec(folder)
    assert spec_hash(before) == spec_hash(_spec(folder, trial={"cpus": 3}, name="t"))
    after = _spec(folder, num_samples=9, space={"lr": {"uniform": [0, 2]}})
    assert spec_hash(before) != spec_hash(after)
    assert changed_keys(before, after) == ["num_samples was 1, is 9", "space.lr.uniform was [0, 1], is [0, 2]"]


@pytest.mark.parametrize(
    ("trial", "nodes", "expected"),
    [
        ({"cpus": 7, "gpus": 1}, [Node(28, 4)] * 4, 16),
        ({"cpus": 1, "gpus": 0.5}, [Node(28, 4)], 8),
        ({"cpus": 1, "gpus": 0.4}, [Node(28, 2)], 4),
        ({"cpus": 3}, [Node(8), Node(2)], 2),
        ({"cpus": 1, "gpus": 2}, [Node(8, 3)], 1),
        ({"cpus": 9}, [Node(8)], 0),
    ],
)
def test_slots(trial: dict[str, float], nodes: list[Node], expected: int) -> None:
    assert slots(TrialResources(**trial), nodes) == expected


def test_a_trial_that_fits_nowhere_and_optional_gpus() -> None:
    (fault,) = unfit(TrialResources(cpus=1, gpus=1), [Node(2)], where="this machine")
    assert "gpu_optional=true" in str(fault)
    assert fit_trial(TrialResources(gpus=1, gpu_optional=True), [Node(2)]).gpus == 0
    assert fit_trial(TrialResources(gpus=1, gpu_optional=True), [Node(2, 1)]).gpus == 1
