"""How many trials fit, and what a user is told when none ever can."""

from __future__ import annotations

import os
from typing import Any

import pytest

from hpc_tune.errors import ExperimentError
from hpc_tune.experiment.capacity import Node, fit_trial, slots, unfit
from hpc_tune.experiment.spec import TrialResources
from hpc_tune.machine import this_machine
from hpc_tune.operations.local import searches


def trial(cpus: float = 1, gpus: float = 0, *, optional: bool = False) -> TrialResources:
    return TrialResources(cpus=cpus, gpus=gpus, gpu_optional=optional)


@pytest.mark.parametrize(
    ("wanted", "nodes", "expected"),
    [
        (trial(1), [Node(8)], 8),
        (trial(3), [Node(8)], 2),
        (trial(0.5), [Node(2)], 4),
        (trial(0.1), [Node(1)], 10),
        (trial(9), [Node(8)], 0),
        (trial(1, 1), [Node(8, 4)], 4),
        (trial(4, 1), [Node(8, 4)], 2),
        (trial(1, 2), [Node(8, 5)], 2),
        (trial(1, 1), [Node(8)], 0),
        (trial(1, 0.5), [Node(8, 2)], 4),
        (trial(1, 0.4), [Node(8, 2)], 4),
        (trial(1, 0.3), [Node(8, 1)], 3),
        (trial(1, 0.25), [Node(3, 1)], 3),
        (trial(1, 0.1), [Node(64, 1)], 10),
        (trial(7, 1), [Node(28, 4)] * 4, 16),
        (trial(3), [Node(8), Node(4), Node(2)], 3),
        (trial(1, 1), [Node(8), Node(8, 2)], 2),
        (trial(1), [], 0),
    ],
)
def test_slots(wanted: TrialResources, nodes: list[Node], expected: int) -> None:
    assert slots(wanted, nodes) == expected


def test_optional_gpus_are_dropped_only_where_there_are_none() -> None:
    wanted = trial(2, 1, optional=True)
    assert fit_trial(wanted, [Node(4)]) == trial(2, 0, optional=True)
    assert fit_trial(wanted, [Node(4), Node(4, 1)]) is wanted
    assert fit_trial(trial(2, 1), [Node(4)]).gpus == 1


@pytest.mark.parametrize(
    ("wanted", "nodes", "expected"),
    [
        (trial(9), [Node(8)], {"trial.cpus": "a trial needs 9 CPUs, here has 8; use --set trial.cpus=8"}),
        (trial(9), [Node(8), Node(2)], {"trial.cpus": "a trial needs 9 CPUs, here has 8; use --set trial.cpus=8"}),
        (trial(1, 3), [Node(8, 2)], {"trial.gpus": "a trial needs 3 GPUs, here has 2; use --set trial.gpus=2"}),
        (trial(1, 2), [Node(8)], {"trial.gpus": "use --set trial.gpu_optional=true to run on CPUs"}),
        (trial(9, 1), [Node(8)], {"trial.cpus": "a trial needs 9 CPUs", "trial.gpus": "has 0"}),
        (trial(8, 2), [Node(8, 2)], {}),
        (trial(8, 1), [Node(8), Node(2, 1)], {"trial": "a trial needs 8 CPUs and 1 GPUs on one node; none of here"}),
    ],
)
def test_a_trial_that_can_never_start_is_explained(
    wanted: TrialResources, nodes: list[Node], expected: dict[str, str]
) -> None:
    faults = unfit(wanted, nodes, where="here")
    assert [fault.key for fault in faults] == list(expected)
    assert bool(faults) == (slots(wanted, nodes) == 0)
    for fault, sentence in zip(faults, expected.values(), strict=True):
        assert sentence in str(fault)


@pytest.mark.parametrize("setting", ["trial.cpus=8", "trial.gpus=2"])
def test_the_advice_works(setting: str) -> None:
    key, _, value = setting.removeprefix("trial.").partition("=")
    wanted = trial(9 if key == "cpus" else 1, 3 if key == "gpus" else 0)
    (fault,) = unfit(wanted, [Node(8, 2)], where="here")
    assert setting in str(fault)
    assert slots(wanted.model_copy(update={key: float(value)}), [Node(8, 2)]) == 1


def test_a_run_that_cannot_fit_is_refused_before_anything_is_written(project: Any, runs_dir: Any) -> None:
    path = project.json(trial={"cpus": 2, "gpus": 1})
    with pytest.raises(ExperimentError) as caught:
        searches([path], cpus=1, gpus=0)
    message = str(caught.value)
    assert "trial.cpus: a trial needs 2 CPUs, this machine has 1; use --set trial.cpus=1" in message
    assert "use --set trial.gpu_optional=true to run on CPUs" in message
    assert not runs_dir.exists()


# ------------------------------------------------------------------------------- this machine


def test_the_machine_has_the_cpus_that_we_may_use() -> None:
    assert this_machine().cpus == len(os.sched_getaffinity(0))
    assert this_machine(cpus=3, gpus=2) == Node(3, 2)


@pytest.mark.parametrize(
    ("visible", "gpus"), [("0,1,2", 3), ("GPU-8932f937", 1), ("", 0), ("-1", 0), ("NoDevFiles", 0), ("0, 1", 2)]
)
def test_the_machine_has_the_gpus_that_are_visible(monkeypatch: pytest.MonkeyPatch, visible: str, gpus: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert this_machine().gpus == gpus
