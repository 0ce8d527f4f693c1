"""The trainable's source: what is said about it before and while it is imported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.errors import ExperimentError
from hpc_tune.experiment.source import check_reference, resolve


def fault_of(reference: str, folder: Path) -> str:
    with pytest.raises(ExperimentError) as caught:
        resolve(reference, folder)
    (fault,) = caught.value.faults
    return str(fault)


# ------------------------------------------------------------------------------- without importing


def test_a_missing_file_names_the_nearest(project: Any) -> None:
    faults = project.faults(trainable="trian.py:train", data="sub/data.py:load")
    assert faults["trainable"] == f"trainable: there is no file {project.path}/trian.py; did you mean 'train.py'?"
    assert f"data: there is no file {project.path}/sub/data.py" in faults["data"]


def test_a_missing_function_names_the_nearest(project: Any) -> None:
    assert project.faults(trainable="train.py:tarin", data="train.py:zzz") == {
        "trainable": f"trainable: {project.path}/train.py defines no 'tarin'; did you mean 'train'?",
        "data": f"data: {project.path}/train.py defines no 'zzz'; known: load_data, train",
    }


def test_a_syntax_error_comes_with_its_line(project: Any) -> None:
    project.write("train.py", "import os\n\ndef train(config:\n    pass\n")
    (fault,) = project.faults().values()
    assert fault == f"trainable: {project.path}/train.py, line 3: '(' was never closed"


@pytest.mark.parametrize("content", [b"x = '\xff'\n", b"x = 1\x00\n"])
def test_a_file_that_is_no_source_is_refused(project: Any, content: bytes) -> None:
    (project.path / "train.py").write_bytes(content)
    (fault,) = project.faults().values()
    assert fault.startswith(f"trainable: {project.path}/train.py")


def test_the_encoding_is_the_one_that_the_file_declares(project: Any) -> None:
    (project.path / "train.py").write_bytes(b"# coding: latin-1\nname = 'caf\xe9'\ndef train(config): ...\n")
    assert callable(resolve(project.load().experiment.trainable, project.path))


def test_checking_does_not_run_the_file(project: Any) -> None:
    project.write("train.py", "raise SystemExit('was imported')\ndef train(config): ...\n")
    assert project.load().experiment.name == "search"


@pytest.mark.parametrize(
    "source",
    [
        "def train(config): ...",
        "async def train(config): ...",
        "class train: ...",
        "train = print",
        "train: object = print",
        "x, train = 1, print",
        "from math import sin as train",
        "from math import *",
        "import math as train",
        "if True:\n    def train(config): ...",
        "try:\n    import torch_x\nexcept ImportError:\n    def train(config): ...",
        "with open('/dev/null'):\n    train = print",
        "for train in [print]: ...",
    ],
)
def test_whatever_binds_the_name_will_do(project: Any, source: str) -> None:
    project.write("train.py", source)
    assert check_reference("trainable", "train.py:train", project.path) is None


def test_a_name_inside_a_function_is_no_trainable(project: Any) -> None:
    project.write("train.py", "def other():\n    def train(config): ...\n")
    assert "defines no 'train'; known: other" in str(check_reference("trainable", "train.py:train", project.path))


def test_a_package_that_is_not_there_is_a_fault(project: Any) -> None:
    fault = str(check_reference("trainable", "no_such_package.models:train", project.path))
    assert fault.startswith(f"trainable: there is no module 'no_such_package' in {project.path} or in this Python's")
    project.write("no_such_package/models.py", "")
    assert check_reference("trainable", "no_such_package.models:train", project.path) is None


def test_installed_modules_and_objects_are_left_to_the_driver(project: Any) -> None:
    assert check_reference("trainable", "json.no.such.module:train", project.path) is None
    assert check_reference("trainable", print, project.path) is None


# ------------------------------------------------------------------------------- importing


def test_files_and_packages_are_imported(project: Any) -> None:
    project.write("sub/my-train.py", "def train(config): return 'file'\n")
    project.write("own_package/inner.py", "def train(config): return 'package'\n")
    assert resolve("sub/my-train.py:train", project.path)({}) == "file"
    assert resolve("own_package.inner:train", project.path)({}) == "package"
    assert resolve("math:sqrt", project.path)(4) == 2
    assert resolve(len, project.path) is len


def test_a_file_finds_its_neighbours(project: Any) -> None:
    project.write("neighbour_of_train.py", "VALUE = 3\n")
    project.write("train.py", "from neighbour_of_train import VALUE\ndef train(config): return VALUE\n")
    assert resolve("train.py:train", project.path)({}) == 3


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("\n\nimport no_such_library\n", "line 3: ModuleNotFoundError: No module named 'no_such_library'"),
        ("x = 1\nx.y\n", "line 2: AttributeError: 'int' object has no attribute 'y'"),
        ("def f():\n    1 / 0\n\nf()\n", "line 2: ZeroDivisionError: division by zero"),
        ("x = (\n", "line 1: SyntaxError: '(' was never closed"),
        ("import json\njson.loads('{')\n", "line 2: JSONDecodeError: Expecting property name"),
    ],
)
@pytest.mark.parametrize("reference", ["failing_source.py:train", "failing_source:train"])
def test_an_error_while_importing_is_shown_with_its_line(
    project: Any, source: str, sentence: str, reference: str
) -> None:
    project.write("failing_source.py", source)
    fault = fault_of(reference, project.path)
    assert fault.startswith(f"failing_source.py, {sentence}")


def test_an_error_in_a_neighbour_is_shown_there(project: Any) -> None:
    project.write("broken_neighbour.py", "import os\n\nraise RuntimeError('no GPU')\n")
    project.write("train.py", "\nimport broken_neighbour\ndef train(config): ...\n")
    assert fault_of("train.py:train", project.path) == "broken_neighbour.py, line 3: RuntimeError: no GPU"


def test_a_missing_library_comes_with_the_command(project: Any) -> None:
    project.write("train.py", "import no_such_library\ndef train(config): ...\n")
    assert fault_of("train.py:train", project.path).endswith("; install it with: pip install no_such_library")


def test_a_missing_package_has_no_line(project: Any) -> None:
    fault = fault_of("no_such_package.train:train", project.path)
    assert "ModuleNotFoundError: No module named 'no_such_package'" in fault
    assert "None" not in fault


def test_a_name_that_another_module_has_is_refused(project: Any) -> None:
    project.write("random.py", "def train(config): ...\n")
    fault = fault_of("random.py:train", project.path)
    assert "its name is taken by the module 'random' of " in fault
    assert "rename the file, for example to my_train.py" in fault
    project.write("sys.py", "def train(config): ...\n")
    assert "its name is taken by the module 'sys' of Python itself" in fault_of("sys.py:train", project.path)


def test_a_missing_name_after_the_import_names_the_nearest(project: Any) -> None:
    project.write("train.py", "def train(config): ...\n")
    assert fault_of("train.py:trian", project.path) == "train.py has no 'trian'; did you mean 'train'?"


def test_the_folder_is_put_on_the_path_once(project: Any) -> None:
    for _ in range(2):
        resolve("train.py:train", project.path)
    assert sys.path.count(str(project.path)) == 1


def test_a_users_own_validation_error_is_explained(project: Any) -> None:
    project.write("train.py", "class ValidationError(Exception): ...\nraise ValidationError('bad settings')\n")
    assert fault_of("train.py:train", project.path) == "train.py, line 2: ValidationError: bad settings"
