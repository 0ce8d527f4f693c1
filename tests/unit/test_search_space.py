"""The search space: every domain of Ray Tune, and the wrong ones."""

from __future__ import annotations

from typing import Any

import pytest

from hpc_tune.experiment.space import DOMAINS, Domain, SpaceFaults, parse_space

GOOD = [
    ("uniform", [-1, 2.5]),
    ("quniform", [0, 1, 0.25]),
    ("quniform", [0.1, 0.3, 0.1]),
    ("loguniform", [1e-4, 1e-1]),
    ("qloguniform", [1e-4, 1e-1, 5e-5]),
    ("randn", []),
    ("randn", [10]),
    ("randn", [10, 2]),
    ("qrandn", [10, 2, 0.2]),
    ("randint", [-9, 15]),
    ("qrandint", [-20, 12, 3]),
    ("lograndint", [1, 10]),
    ("qlograndint", [1, 10, 2]),
    ("choice", ["a", 1, None, [2, 3]]),
    ("grid", [32, 64]),
]


@pytest.mark.parametrize(("kind", "args"), GOOD)
def test_each_domain_is_read_as_it_is_written(kind: str, args: list[Any]) -> None:
    space = parse_space({"lr": {kind: args}, "deep": {"er": {kind: args}, "x": 1}, "constant": args})
    assert space == {"lr": Domain(kind, tuple(args)), "deep": {"er": space["lr"], "x": 1}, "constant": args}
    assert space["lr"].as_written() == {kind: args}


def test_every_domain_has_a_good_example() -> None:
    assert {kind for kind, _ in GOOD} == set(DOMAINS)


@pytest.mark.parametrize(("kind", "args"), [case for case in GOOD if case[0] != "grid"])
def test_each_domain_that_is_accepted_can_be_sampled(kind: str, args: list[Any]) -> None:
    """What passes on the login node must not fail in the allocation."""
    search = pytest.importorskip("hpc_tune.runtime.search")
    domain = search.ray_space(parse_space({"x": {kind: args}}))["x"]
    value = domain.sample()
    if kind == "choice":
        assert value in args
    elif kind not in ("randn", "qrandn"):
        assert args[0] - 1e-9 <= value <= args[1] + 1e-9


def test_a_grid_becomes_rays(project: Any) -> None:
    search = pytest.importorskip("hpc_tune.runtime.search")
    space = project.load(space={"a": {"b": {"grid": [1, 2]}}, "c": 3}).experiment.space
    assert search.ray_space(space) == {"a": {"b": {"grid_search": [1, 2]}}, "c": 3}


def test_a_python_file_may_hold_any_object_of_ray_tune(project: Any) -> None:
    tune = pytest.importorskip("ray.tune")
    from hpc_tune.experiment.load import load_experiment

    source = """
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator
from hpc_tune import Experiment

experiment = Experiment(
    name="objects", trainable=lambda config: None, metric="loss", mode="min", num_samples=2,
    searcher=BasicVariantGenerator(), trial_scheduler=ASHAScheduler(),
    space={
        "lr": tune.loguniform(1e-4, 1e-1),
        "twice": tune.sample_from(lambda config: config["lr"] * 2),
        "layers": tune.grid_search([1, 2, 3]),
        "deep": {"choice_of_ray": tune.choice([1, 2]), "ours": {"uniform": [0, 1]}},
    },
)
"""
    path = project.write("ray_objects.py", source)
    experiment = load_experiment(path, ["space.added=1"]).experiment
    assert experiment.total_trials == 6
    assert experiment.space["added"] == 1
    assert isinstance(experiment.space["twice"], type(tune.sample_from(lambda config: 1)))
    assert experiment.space["deep"]["ours"] == Domain("uniform", (0, 1))
    assert experiment.as_json()["trial_scheduler"].endswith("AsyncHyperBandScheduler>")


@pytest.mark.parametrize(
    ("kind", "args", "sentence"),
    [
        ("uniform", [1, 0], "uniform: bounds are the wrong way round; write [0, 1]"),
        ("randint", [9, 3], "randint: bounds are the wrong way round; write [3, 9]"),
        ("loguniform", [0.1, 1e-4], "loguniform: bounds are the wrong way round; write [0.0001, 0.1]"),
        ("uniform", [1, 1], "bounds are equal; write the constant 1 instead"),
        ("loguniform", [0, 1], "a logarithmic domain cannot reach 0; use a lower bound above 0"),
        ("qloguniform", [-1, 1, 1], "a logarithmic domain cannot reach -1"),
        ("lograndint", [0, 5], "a logarithmic domain cannot reach 0"),
        ("qlograndint", [0, 5, 1], "a logarithmic domain cannot reach 0"),
        ("uniform", [0, float("inf")], "bounds must be finite, got 0 and inf"),
        ("uniform", [float("nan"), 1], "bounds must be finite, got nan and 1"),
        ("uniform", [0], "expected [lower, upper], got [0]"),
        ("uniform", [0, 1, 2], "expected [lower, upper], got [0, 1, 2]"),
        ("quniform", [0, 1], "expected [lower, upper, q], got [0, 1]"),
        ("loguniform", [1], "expected [lower, upper, base (may be left out)], got [1]"),
        ("uniform", ["1e-4", 1], "expected numbers, got ['1e-4', 1]"),
        ("uniform", [False, True], "expected numbers, got [False, True]"),
        ("uniform", 5, "uniform takes a list, got 5; write { uniform = [...] }"),
        ("randint", [0.5, 3], "bounds must be whole numbers, got 0.5 and 3"),
        ("quniform", [0, 1, 0], "the step q must be above 0, got 0"),
        ("qrandint", [0, 10, 0.5], "the step q must be a whole number, got 0.5"),
        ("quniform", [0, 1, 0.3], "the bounds must be multiples of the step q; got [0, 1] and 0.3"),
        ("qloguniform", [1e-4, 1e-1, 3e-4], "the bounds must be multiples of the step q"),
        ("loguniform", [1e-3, 1, -2], "the base must be above 1, got -2"),
        ("loguniform", [1e-3, 1, 1], "the base must be above 1, got 1"),
        ("randn", [0, 0], "the standard deviation must be above 0, got 0"),
        ("randn", [0, 1, 2], "expected [mean, sd], got [0, 1, 2]"),
        ("qrandn", [0, 1], "expected [mean, sd, q], got [0, 1]"),
        ("choice", [], "choice: expected at least one value, got an empty list"),
        ("grid", [], "grid: expected at least one value, got an empty list"),
        ("grid", "abc", "grid takes a list, got 'abc'; write { grid = [...] }"),
        ("unifrom", [0, 1], "unknown domain 'unifrom'; did you mean 'uniform'?"),
        ("LogUniform", [0, 1], "unknown domain 'LogUniform'; did you mean 'loguniform'?"),
    ],
)
def test_a_wrong_domain_is_named_with_its_key(project: Any, kind: str, args: Any, sentence: str) -> None:
    faults = project.faults(space={"good": 1, "deep": {"lr": {kind: args}}})
    assert list(faults) == ["space.deep.lr"]
    assert sentence in faults["space.deep.lr"]


def test_all_faults_of_a_space_come_together() -> None:
    with pytest.raises(SpaceFaults) as caught:
        parse_space({"a": {"uniform": [1, 0]}, "b": {"c": {"grid": []}}, "d": {"randint": [0, 3]}})
    assert [fault.key for fault in caught.value.faults] == ["space.a", "space.b.c"]


def test_what_is_no_domain_is_left_alone() -> None:
    space = {"one_key": {"betas": [0.9, 0.99]}, "text": "uniform", "list": [1], "nothing": {}, "flag": True}
    assert parse_space(space) == space


@pytest.mark.parametrize("table", [{"uniform": [0, 1], "q": 0.1}, {"uniform": [0, 1], "loguniform": [1e-4, 1]}])
def test_a_domain_beside_other_keys_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(SpaceFaults) as caught:
        parse_space({"deep": {"lr": table}})
    (fault,) = caught.value.faults
    assert str(fault).startswith(f"space.deep.lr: the domain uniform stands beside {list(table)[1]}")
    assert "write { uniform = [0, 1] } alone" in str(fault)


@pytest.mark.parametrize(
    "value",
    [
        [{"randint": [16, 64]}, 10],
        [10, [{"randint": [16, 64]}]],
        [{"units": {"randint": [16, 64]}}],
        {"choice": [{"randint": [16, 64]}, 10]},
        {"grid": [{"units": {"randint": [16, 64]}}]},
    ],
)
def test_a_domain_in_a_list_is_refused(value: Any) -> None:
    with pytest.raises(SpaceFaults) as caught:
        parse_space({"layers": value})
    (fault,) = caught.value.faults
    assert str(fault).startswith("space.layers: the domain randint is inside a list")


def test_lists_and_tables_without_domains_are_values() -> None:
    space = {"layers": [{"units": 3}, [1, {"kind": "uniform"}]], "uniform": {"lower": 1, "upper": 2}}
    assert parse_space(space) == space
    chosen = parse_space({"layers": {"choice": [[16, 32], {"units": [64]}]}})
    assert chosen == {"layers": Domain("choice", ([16, 32], {"units": [64]}))}
