"""From an experiment and a site to what Slurm is asked for, and what is said when that cannot be had."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hpc_tune.experiment.allocation import Allocation
from hpc_tune.experiment.spec import TrialResources
from hpc_tune.request import JobRequest, check_request, request_notes, resolve_request
from hpc_tune.site import Site, load_site

ONE_GPU = TrialResources(cpus=7, gpus=1)
CPU = TrialResources(cpus=2)
UNKNOWN = Site(name="unknown")


@pytest.fixture
def iris(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Site:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return load_site("iris")


def request(site: Site, trial: TrialResources = ONE_GPU, environ: Any = None, **allocation: Any) -> JobRequest:
    return resolve_request(Allocation.model_validate(allocation), site, trial, environ or {})


def faults(site: Site, trial: TrialResources = ONE_GPU, **allocation: Any) -> list[str]:
    return [str(each) for each in check_request(request(site, trial, **allocation), site, trial)]


# ------------------------------------------------------------------------------- resolved


def test_a_site_fills_in_what_is_left_open(iris: Site) -> None:
    assert request(iris, nodes=4) == JobRequest(nodes=4, cpus_per_node=28, gpus_per_node=4, partition="gpu", time=7200)


def test_the_experiment_beats_sbatchs_variables_which_beat_the_site() -> None:
    site = Site(name="x", partition="a", qos="b", account="c")
    environ = {"SBATCH_PARTITION": "d", "SBATCH_QOS": "e"}
    resolved = request(site, environ=environ, partition="f")
    assert (resolved.partition, resolved.qos, resolved.account) == ("f", "e", "c")


def test_directives_are_merged_and_spelled_as_sbatch_does() -> None:
    site = Site(name="x", sbatch={"mail_type": "END", "exclusive": True, "hint": "nomultithread"})
    resolved = request(site, sbatch={"mail-type": "FAIL", "exclusive": False, "nice": 0})
    assert resolved.sbatch == {"mail-type": "FAIL", "hint": "nomultithread", "nice": 0}


@pytest.mark.parametrize(
    ("allocation", "trial", "cpus", "gpus"),
    [
        ({}, ONE_GPU, 28, 4),
        ({"gpus_per_node": 1}, ONE_GPU, 7, 1),
        ({"gpus_per_node": 3}, ONE_GPU, 21, 3),
        ({"gpus_per_node": 0}, CPU, 28, 0),
        ({}, CPU, 28, 0),
        ({"cpus_per_node": 12}, ONE_GPU, 12, 4),
        ({"partition": "batch"}, CPU, 28, 0),
        ({"partition": "batch"}, TrialResources(gpus=1, gpu_optional=True), 28, 0),
    ],
)
def test_cpus_and_gpus_on_iris(
    iris: Site, allocation: dict[str, Any], trial: TrialResources, cpus: int, gpus: int
) -> None:
    resolved = request(iris, trial, **allocation)
    assert (resolved.cpus_per_node, resolved.gpus_per_node) == (cpus, gpus)


@pytest.mark.parametrize(
    ("trial", "allocation", "cpus", "gpus"),
    [
        (TrialResources(cpus=3), {}, 3, 0),
        (TrialResources(cpus=0.5), {}, 1, 0),
        (TrialResources(cpus=3, gpus=1), {}, 3, 1),
        (TrialResources(cpus=3, gpus=1), {"gpus_per_node": 4}, 12, 4),
        (TrialResources(cpus=2, gpus=0.5), {"gpus_per_node": 4}, 16, 4),
        (TrialResources(cpus=2, gpus=0.4), {"gpus_per_node": 2}, 8, 2),
        (TrialResources(cpus=5, gpus=2), {"gpus_per_node": 4}, 10, 4),
        (TrialResources(cpus=3, gpus=0.3), {}, 9, 1),
    ],
)
def test_an_unknown_node_gets_what_its_trials_need(
    trial: TrialResources, allocation: dict[str, Any], cpus: int, gpus: int
) -> None:
    resolved = request(UNKNOWN, trial, **allocation)
    assert (resolved.cpus_per_node, resolved.gpus_per_node) == (cpus, gpus)
    assert resolved.time is None
    assert resolved.partition is None


def test_without_a_rule_cpus_are_shared_in_proportion() -> None:
    site = Site.model_validate({
        "name": "x", "partition": "p", "partitions": {"p": {"cpus_per_node": 30, "gpus_per_node": 4}}
    })  # fmt: skip
    assert [request(site, gpus_per_node=gpus).cpus_per_node for gpus in (1, 2, 3, 4)] == [7, 15, 22, 30]


def test_a_type_of_gpu_is_only_named_with_gpus(iris: Site) -> None:
    assert request(iris, gpu_type="volta").gpu_type == "volta"
    assert request(iris, CPU, gpu_type="volta").gpu_type is None


# ------------------------------------------------------------------------------- checked


def test_a_legal_request_has_no_faults(iris: Site) -> None:
    assert faults(iris, nodes=4, gpus_per_node=4, time="48:00:00", qos="besteffort") == []
    assert faults(iris, CPU, partition="batch", nodes=64) == []
    assert faults(UNKNOWN, nodes=500, time="100d", qos="x", partition="y") == []


@pytest.mark.parametrize(
    ("allocation", "fault"),
    [
        ({"nodes": 5}, "allocation.nodes: at most 4 nodes per job in partition gpu; use --nodes 4"),
        ({"time": "3d"}, "allocation.time: at most 48:00:00 in partition gpu; use --time 48:00:00"),
        ({"qos": "norml"}, "allocation.qos: partition gpu does not take QOS 'norml'; did you mean 'normal'?"),
        ({"gpus_per_node": 5}, "allocation.gpus_per_node: a node of partition gpu has 4 GPUs; use --gpus-per-node 4"),
        ({"partition": "batch"},
         "allocation.gpus_per_node: a node of partition batch has no GPUs; use --partition gpu"),
        ({"cpus_per_node": 29},
         "allocation.cpus_per_node: a node of partition gpu has 28 CPUs, asked for are 29; use --cpus-per-node 28"),
        ({"memory": "1T"},
         "allocation.memory: a node of partition gpu has 786432 MB, asked for are 1T; use --memory 786432M"),
        ({"gpu_type": "vlta"}, "allocation.gpu_type: partition gpu has no GPUs of type 'vlta'; did you mean 'volta'?"),
        ({"time": "2m"},
         "allocation.grace: is 120 s, the whole walltime is 120 s; use --set allocation.grace=30, or more time"),
        ({"nodes": 3, "qos": "iris-gpu-long"},
         "allocation.nodes: at most 2 nodes per job with QOS iris-gpu-long; use --nodes 2"),
        ({"nodes": 2, "time": "15d", "qos": "iris-gpu-long"},
         "allocation.time: at most 336:00:00 with QOS iris-gpu-long; use --time 336:00:00"),
        ({"time": "3h", "qos": "wide"}, "allocation.time: at most 02:00:00 with QOS wide; use --time 02:00:00"),
    ],
)  # fmt: skip
def test_a_fault_names_the_nearest_legal_request(iris: Site, allocation: dict[str, Any], fault: str) -> None:
    assert faults(iris, **allocation) == [fault]


def test_the_advice_is_legal(iris: Site) -> None:
    for allocation in ({"nodes": 4}, {"time": "48:00:00"}, {"time": "2m", "grace": 30}, {"memory": "786432M"}):
        assert faults(iris, **allocation) == []


def test_a_qos_may_last_longer_than_its_partition(iris: Site) -> None:
    assert faults(iris, nodes=2, time="14d", qos="iris-gpu-long") == []


def test_all_faults_come_at_once(iris: Site) -> None:
    found = faults(iris, nodes=9, time="9d", gpus_per_node=9, qos="x")
    assert [each.partition(":")[0] for each in found] == [
        "allocation.nodes", "allocation.time", "allocation.gpus_per_node", "allocation.qos",
    ]  # fmt: skip


def test_a_partition_is_no_larger_than_it_is() -> None:
    site = Site.model_validate({"name": "x", "partition": "p", "partitions": {"p": {"nodes": 2}}})
    assert faults(site, CPU, nodes=3) == ["allocation.nodes: partition p has 2 nodes; use --nodes 2"]


def test_a_site_without_gpus() -> None:
    site = Site.model_validate({"name": "x", "partition": "p", "partitions": {"p": {"gpus_per_node": 0}}})
    (fault,) = faults(site)
    assert "has no GPUs; use --set trial.gpu_optional=true to run on CPUs" in fault
    assert faults(site, TrialResources(gpus=1, gpu_optional=True)) == []


def test_a_trial_that_fits_no_node(iris: Site) -> None:
    (fault,) = faults(iris, TrialResources(cpus=8, gpus=1), gpus_per_node=1)
    assert fault == "trial.cpus: a trial needs 8 CPUs, a node of this job has 7; use --set trial.cpus=7"


# ------------------------------------------------------------------------------- notes


def test_what_is_worth_knowing(iris: Site) -> None:
    scratch = {"SCRATCH": "/scratch"}
    assert request_notes(request(iris), iris, scratch) == []
    assert request_notes(request(iris), iris, {}) == [
        "$SCRATCH is not set here: runs are kept in ./runs, not in $SCRATCH/hpc-tune/runs"
    ]
    cases = {
        "may be preempted": request(iris, qos="besteffort"),
        "its limits are not checked": request(iris, partition="hopper"),
        "leave GPUs without CPUs": request(iris, gpus_per_node=1, cpus_per_node=28),
        "trials ask for no GPUs": request(iris, CPU),
    }
    for words, asked in cases.items():
        (note,) = request_notes(asked, iris, scratch)
        assert words in note


def test_a_request_is_a_value() -> None:
    asked = request(UNKNOWN)
    assert replace(asked, nodes=2) != asked
    assert asked == request(UNKNOWN)
