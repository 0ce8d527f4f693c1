"""Further sbatch directives: what passes through, what is refused, and what is said then."""

from __future__ import annotations

from typing import Any

import pytest

from hpc_tune.experiment.allocation import Allocation
from hpc_tune.experiment.directives import OWNED, directive_faults, long_name


def fault(name: str, value: Any = "x") -> str:
    (found,) = directive_faults({name: value}, "allocation.sbatch")
    assert found.key == f"allocation.sbatch.{name}"
    return str(found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reservation", "course"), ("mail-type", "END,FAIL"), ("mail_type", "END"), ("exclusive", True), ("nice", 100),
        ("comment", "a b $(c) 'd' \"e\""), ("hint", "nomultithread"), ("licenses", "a:1"), ("begin", "now+1hour"),
        ("exclusive", False), ("nodelist", "iris-169"), ("dependency", "afterok:1"),
    ],
)  # fmt: skip
def test_other_directives_pass_through(name: str, value: Any) -> None:
    assert directive_faults({name: value}, "sbatch") == []
    assert Allocation.model_validate({"sbatch": {name: value}}).sbatch == {name: value}


@pytest.mark.parametrize("name", sorted(OWNED))
def test_what_is_ours_is_refused_with_a_reason(name: str) -> None:
    for spelled in (name, name.replace("-", "_"), f"--{name}"):
        assert f"--{name} " in fault(spelled)
        assert len(fault(spelled)) > len(f"allocation.sbatch.{spelled}: --{name} ") + 10


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("nodes", "use allocation.nodes (--nodes)"),
        ("mem", "use allocation.memory (--memory)"),
        ("gpus-per-node", "use allocation.gpus_per_node (--gpus-per-node)"),
        ("signal", "use allocation.grace (--set allocation.grace=…)"),
        ("output", "hpc-tune logs"),
    ],
)
def test_what_to_use_instead(name: str, instead: str) -> None:
    assert instead in fault(name)


def test_sbatch_takes_any_beginning_of_an_option() -> None:
    assert "--parti is short for --partition, which is set by hpc-tune; use allocation.partition" in fault("parti")
    assert "--node is short for --nodes" in fault("node")


@pytest.mark.parametrize("name", ["", "A", "-p", "N", "a b", "x=y", "comment\n#SBATCH", "Ä", "--"])
def test_what_is_no_long_option(name: str) -> None:
    assert "is not a long option of sbatch" in fault(name)


@pytest.mark.parametrize("value", ["a\nb", "a\r", "a\x00b", "a\x1bb", "a\u2028b"])
def test_a_value_cannot_begin_another_line(value: str) -> None:
    assert "printable text on one line" in fault("comment", value)


def test_long_names() -> None:
    assert long_name("mail_type") == long_name("--mail-type") == long_name("MAIL-TYPE") == "mail-type"


def test_all_faults_come_at_once(project: Any) -> None:
    faults = project.faults(allocation={
        "nodes": 2, "min_nodes": 0, "sbatch": {"nodes": 3, "wrap": "x", "comment": "a\nb"}, "memory": "64 GB",
        "partition": "a\nb", "account": "", "tme": "1h",
    })  # fmt: skip
    assert set(faults) == {
        "allocation.min_nodes", "allocation.sbatch.nodes", "allocation.sbatch.wrap", "allocation.sbatch.comment",
        "allocation.memory", "allocation.partition", "allocation.account", "allocation.tme",
    }  # fmt: skip
    assert 'expected a size such as "64G"' in faults["allocation.memory"]
    assert "did you mean 'time'?" in faults["allocation.tme"]


def test_the_quorum_is_part_of_the_job(project: Any) -> None:
    faults = project.faults(allocation={"nodes": 2, "min_nodes": 3})
    assert "use --min-nodes 2, or --nodes 3" in faults["allocation.min_nodes"]


def test_memory_in_slurms_units(project: Any) -> None:
    assert project.load(allocation={"memory": 64000}).experiment.allocation.memory == "64000M"
    assert project.load("allocation.memory=64G").experiment.allocation.memory == "64G"
    assert project.load("allocation.sbatch.mail-type=END").experiment.allocation.sbatch == {"mail-type": "END"}
