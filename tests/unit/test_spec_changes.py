"""What makes a search what it is: the hash of a spec, and the keys that changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpc_tune.experiment.load import load_experiment
from hpc_tune.experiment.spec import changed_keys, spec_hash

SPACE = {"lr": {"loguniform": [1e-4, 0.1]}, "deep": {"b": 1, "a": {"choice": [1, "x"]}}, "sizes": [1, 2]}


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return value


def test_the_hash_ignores_the_order_of_keys_and_the_format(project: Any) -> None:
    one = project.load(space=SPACE, stop={"a": 1, "b": 2}).experiment.as_json()
    spec = reordered(project.spec(space=SPACE, stop={"a": 1.0, "b": 2}))
    other = load_experiment(project.write("other.json", json.dumps(spec))).experiment.as_json()
    toml = """
        name = "search"
        trainable = "train.py:train"
        metric = "accuracy"
        mode = "max"
        [stop]
        b = 2
        a = 1
        [space.deep]
        a.choice = [1, "x"]
        b = 1
        [space]
        sizes = [1, 2]
        lr.loguniform = [0.0001, 1e-1]
    """
    third = load_experiment(project.write("other.toml", toml.replace("[space]", "[ space ]"))).experiment.as_json()
    assert spec_hash(one) == spec_hash(other) == spec_hash(third)
    assert changed_keys(one, other) == changed_keys(one, third) == []


def test_the_hash_survives_the_run_record(project: Any) -> None:
    spec = project.load(space=SPACE).experiment.as_json()
    again = json.loads(json.dumps(spec))
    assert spec_hash(again) == spec_hash(spec)
    assert changed_keys(spec, again) == []


def test_what_does_not_make_the_search_may_change(project: Any) -> None:
    before = project.load().experiment.as_json()
    after = project.load(
        name="other",
        time_budget="1h",
        evaluate="train.py:load_data",
        trial={"cpus": 4, "gpus": 1, "max_failures": 2},
        checkpoint={"keep": 9},
        allocation={"nodes": 8},
    ).experiment.as_json()
    assert spec_hash(before) == spec_hash(after)
    assert changed_keys(before, after) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_samples": 9}, "num_samples was 1, is 9"),
        ({"metric": "loss"}, 'metric was "accuracy", is "loss"'),
        ({"mode": "min"}, 'mode was "max", is "min"'),
        ({"seed": 3}, "seed was null, is 3"),
        ({"trainable": "train.py:load_data"}, 'trainable was "train.py:train", is "train.py:load_data"'),
        ({"data": "train.py:load_data"}, 'data was null, is "train.py:load_data"'),
        ({"space": SPACE | {"lr": {"loguniform": [1e-4, 1]}}}, "space.lr.loguniform was [0.0001, 0.1], is [0.0001, 1]"),
        ({"space": SPACE | {"sizes": [1, 3]}}, "space.sizes was [1, 2], is [1, 3]"),
        ({"space": SPACE | {"new": True}}, "space.new was null, is true"),
        ({"trial_scheduler": {"name": "fifo"}}, None),
        ({"searcher": {"name": "random", "constant_grid_search": True}}, "searcher.constant_grid_search was null, is"),
    ],
)
def test_each_change_is_named(project: Any, changes: dict[str, Any], sentence: str | None) -> None:
    before = project.load(space=SPACE).experiment.as_json()
    after = project.load(**({"space": SPACE} | changes)).experiment.as_json()
    told = changed_keys(before, after)
    if sentence is None:
        assert (told, spec_hash(before)) == ([], spec_hash(after))
    else:
        (only,) = told
        assert only.startswith(sentence)
        assert spec_hash(before) != spec_hash(after)


def test_all_changes_are_named_together(project: Any) -> None:
    before = project.load(space={"a": 1, "b": {"c": 2, "d": 3}}).experiment.as_json()
    after = project.load(space={"a": 1, "b": {"c": 5, "e": 3}}, num_samples=2).experiment.as_json()
    assert sorted(change.split(" was ")[0] for change in changed_keys(before, after)) == [
        *("num_samples", "space.b.c", "space.b.d", "space.b.e"),
    ]


def test_a_flag_is_not_a_number(project: Any) -> None:
    before, after = (project.load(space={"x": value}).experiment.as_json() for value in (1, True))
    assert changed_keys(before, after) == ["space.x was 1, is true"]
