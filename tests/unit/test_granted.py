"""What Slurm granted to a node agent, from environments as Slurm makes them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hpc_tune.attempt import SlurmJob
from hpc_tune.errors import SlurmError
from hpc_tune.runtime.granted import Place, Resources

GB = 2**30
IRIS = {
    "SLURM_JOB_ID": "4711",
    "SLURM_CLUSTER_NAME": "iris",
    "SLURM_JOB_PARTITION": "gpu",
    "SLURM_PROCID": "2",
    "SLURM_NTASKS": "4",
    "SLURMD_NODENAME": "iris-171",
    "SLURM_JOB_NODELIST": "iris-[169-172]",
    "SLURM_STEP_NODELIST": "iris-[169-172]",
    "SLURM_LAUNCH_NODE_IPADDR": "172.17.0.169",
    "SLURM_CPUS_PER_TASK": "28",
    "SLURM_CPUS_ON_NODE": "28",
    "SLURM_GPUS_ON_NODE": "4",
    "SLURM_GPUS_PER_TASK": "",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3",
    "SLURM_MEM_PER_NODE": "786432",
}


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """Return a shared memory with so many bytes free."""

    def with_free(free: int) -> Path:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free, 0, free))
        return tmp_path

    return with_free


def on_iris(*without: str, **changes: str) -> dict[str, str]:
    return {key: value for key, value in {**IRIS, **changes}.items() if key not in without}


# ------------------------------------------------------------------------------- CPUs and GPUs


def test_a_whole_node_of_iris(shm: Callable[[int], Path]) -> None:
    found = Resources.from_environment(IRIS, shm(700 * GB))
    assert (found.cpus, found.gpus) == (28, 4)
    assert found.object_store == int(0.3 * 768 * GB)
    assert found.memory == 768 * GB - found.object_store


def test_a_step_may_have_less_than_the_node() -> None:
    assert Resources.from_environment(on_iris(SLURM_CPUS_PER_TASK="14")).cpus == 14


@pytest.mark.parametrize("environment", [on_iris("SLURM_CPUS_PER_TASK"), on_iris(SLURM_CPUS_PER_TASK="")])
def test_before_slurm_22_a_step_may_not_say_its_cpus(environment: dict[str, str]) -> None:
    assert Resources.from_environment(environment).cpus == 28


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [
        ("0,1,2,3", 4),
        ("2", 1),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,GPU-1b5a-02", 2),
        ("MIG-41b3359c-e721-56e5-8009-12e5797ed514", 1),
        ("", 0),
        ("NoDevFiles", 0),
        ("-1", 0),
        ("0, 1", 2),
        ("0,1,", 2),
    ],
)
def test_gpus_are_those_that_are_visible(visible: str, gpus: int) -> None:
    """Ray hands out this list: a number beside it would promise GPUs that nobody sees."""
    assert Resources.from_environment(on_iris(CUDA_VISIBLE_DEVICES=visible)).gpus == gpus


@pytest.mark.parametrize(
    ("without", "changes", "gpus"),
    [
        (["CUDA_VISIBLE_DEVICES"], {}, 4),
        (["CUDA_VISIBLE_DEVICES"], {"SLURM_GPUS_ON_NODE": ""}, 0),
        (["CUDA_VISIBLE_DEVICES", "SLURM_GPUS_ON_NODE"], {}, 0),
        (["SLURM_GPUS_ON_NODE"], {}, 4),
    ],
)
def test_gpus_where_one_of_the_variables_is_missing(without: list[str], changes: dict[str, str], gpus: int) -> None:
    assert Resources.from_environment(on_iris(*without, **changes)).gpus == gpus


# ------------------------------------------------------------------------------- memory


def test_memory_by_cpu(shm: Callable[[int], Path]) -> None:
    by_cpu = on_iris("SLURM_MEM_PER_NODE", SLURM_MEM_PER_CPU="4096", SLURM_CPUS_ON_NODE="14")
    found = Resources.from_environment(by_cpu, shm(700 * GB))
    assert found.object_store is not None
    assert found.memory is not None
    assert found.memory + found.object_store == 14 * 4 * GB


@pytest.mark.parametrize(
    "environment",
    [on_iris("SLURM_MEM_PER_NODE"), on_iris(SLURM_MEM_PER_NODE="0"), on_iris(SLURM_MEM_PER_NODE="")],
    ids=["not limited", "all of it", "empty"],
)
def test_memory_that_slurm_does_not_limit_is_left_to_ray(environment: dict[str, str]) -> None:
    found = Resources.from_environment(environment)
    assert (found.memory, found.object_store) == (None, None)


def test_the_object_store_fits_into_shared_memory(shm: Callable[[int], Path]) -> None:
    """Ray would not start with one that does not; what it leaves belongs to the trials."""
    found = Resources.from_environment(IRIS, shm(10 * GB))
    assert found.object_store == 9 * GB
    assert found.memory == 759 * GB


@pytest.mark.parametrize(("free", "granted"), [(0, "786432"), (2**20, "786432"), (10 * GB, "100")])
def test_the_object_store_is_never_smaller_than_ray_takes(shm: Callable[[int], Path], free: int, granted: str) -> None:
    """Somebody's files may fill the shared memory of a node: the search is slower then, but it starts."""
    found = Resources.from_environment(on_iris(SLURM_MEM_PER_NODE=granted), shm(free))
    assert found.object_store == 75 * 2**20


def test_a_node_without_shared_memory(tmp_path: Path) -> None:
    found = Resources.from_environment(IRIS, tmp_path / "missing")
    assert (found.memory, found.object_store) == (768 * GB, None)


# ------------------------------------------------------------------------------- which node it is


def test_the_place_of_a_task() -> None:
    found = Place.from_environment(IRIS)
    assert found.job == SlurmJob("4711", 0, "iris", "gpu")
    assert (found.rank, found.nodes, found.name) == (2, 4, "iris-171")
    assert found.node_list == "iris-[169-172]"
    assert found.launch_address == "172.17.0.169"
    assert Place.from_environment(on_iris(SLURM_RESTART_COUNT="3")).job.restart_count == 3


def test_a_step_on_fewer_nodes_than_the_job() -> None:
    found = Place.from_environment(on_iris(SLURM_STEP_NODELIST="iris-[169,171]"))
    assert found.node_list == "iris-[169,171]"
    assert Place.from_environment(on_iris("SLURM_STEP_NODELIST")).node_list == "iris-[169-172]"


def test_a_node_without_a_name_from_slurm_has_that_of_its_machine() -> None:
    for environment in (on_iris("SLURMD_NODENAME"), on_iris(SLURMD_NODENAME="")):
        assert Place.from_environment(environment).name == os.uname().nodename


def test_slurm_says_less_at_some_sites() -> None:
    few: dict[str, Any] = {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURMD_NODENAME": "n1"}
    found = Place.from_environment(few)
    assert (found.job, found.node_list, found.launch_address) == (SlurmJob("1"), "", "")


@pytest.mark.parametrize("missing", ["SLURM_JOB_ID", "SLURM_PROCID", "SLURM_NTASKS"])
def test_outside_of_a_job_step(missing: str) -> None:
    with pytest.raises(SlurmError) as caught:
        Place.from_environment(on_iris(missing))
    assert caught.value.message == f"{missing} is not set: a node agent runs as a task of a Slurm job step"
    assert caught.value.hint == "the job script of a run starts it: sbatch job.sbatch"
    assert caught.value.exit_code == 4
