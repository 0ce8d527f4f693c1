"""The user's own source files: read before they are imported, and imported under their own names."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from hpc_tune.errors import ExperimentError, Fault
from hpc_tune.experiment.nearest import did_you_mean

__all__ = ["check_reference", "import_file", "resolve"]


def check_reference(key: str, reference: Any, folder: Path) -> Fault | None:
    """Say what is wrong with ``file.py:name`` without running the file: a login node is slow, and may lack torch.

    Of a reference to a module only the package is looked up; objects of a ``.py`` experiment are what they are.
    """
    if not isinstance(reference, str):
        return None
    target, _, name = reference.rpartition(":")
    if not target.endswith(".py"):
        return _package_fault(key, target, folder)
    path = folder / target
    if not Path(os.path.normpath(path)).is_relative_to(folder) or Path(target).is_absolute():
        problem = f"{target} is not inside {folder}, the experiment's folder, of which a run keeps a snapshot"
        return Fault(key, problem, "put the experiment file into the folder of the code, and name it from there")
    if not path.is_file():
        return Fault(key, f"there is no file {path}", did_you_mean(target, [file.name for file in folder.glob("*.py")]))
    try:
        tree = ast.parse(path.read_bytes(), str(path))  # bytes: Python itself finds out the encoding
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        return Fault(key, f"{path}{f', line {line}' if line else ''}: {getattr(error, 'msg', error)}")
    defined = list(_names_bound(tree.body))
    if name in defined or "*" in defined:
        return None
    return Fault(key, f"{path} defines no {name!r}", did_you_mean(name, [n for n in defined if not n.startswith("_")]))


def _package_fault(key: str, module: str, folder: Path) -> Fault | None:
    package = module.partition(".")[0]
    if not package or package in sys.modules or PathFinder.find_spec(package, [str(folder), *sys.path]) is not None:
        return None
    advice = f'install it, or name a file: "{package}.py:train"'
    return Fault(key, f"there is no module {package!r} in {folder} or in this Python's environment", advice)


def _names_bound(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _names_bound(
                [child for child in ast.walk(node) if isinstance(child, ast.stmt) and child is not node]
            )
        else:
            yield from (
                name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
            )


def import_file(path: Path) -> ModuleType:
    """Import a file under its own stem, its folder first on ``sys.path``.

    Worker processes import it the same way, so functions travel to them by name and not by value.

    Raises:
        ExperimentError: if the file fails, with the line that failed, or if its name is taken by another module.
    """
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(path.stem)
    except ExperimentError:
        raise
    except (Exception, SystemExit) as error:
        if getattr(error, "title", None) == "Experiment":  # pydantic's, of a wrong one; listed by the caller
            raise
        raise ExperimentError(path, [_import_fault(path, error)]) from error
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != path.resolve():
        problem = f"its name is taken by the module {path.stem!r} of {found or 'Python itself'}"
        raise ExperimentError(path, [Fault("", problem, "rename the file, for example to my_train.py")])
    return module


def _import_fault(path: Path, error: BaseException) -> Fault:
    """Name the deepest line of the user's own folder, and the error."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(path.parent.resolve())
    ]
    line = error.lineno if isinstance(error, SyntaxError) else (frames[-1].lineno if frames else None)
    where = (
        Path(error.filename)
        if isinstance(error, SyntaxError) and error.filename
        else Path(frames[-1].filename)
        if frames
        else path
    )
    advice = (
        f"install it with: pip install {error.name}" if isinstance(error, ModuleNotFoundError) and error.name else None
    )
    place = f"{where.name}, line {line}: " if line else ""  # no line of the user's: the module is not there
    said = error.msg if isinstance(error, SyntaxError) else error  # a SyntaxError's text ends in the place again
    return Fault("", f"{place}{type(error).__name__}: {said}", advice)


def resolve(reference: Any, folder: Path) -> Any:
    """Return the object that ``file.py:name`` or ``package.module:name`` stands for, importing it.

    Raises:
        ExperimentError: if it cannot be imported, or has no such name.
    """
    if not isinstance(reference, str):
        return reference
    target, _, name = reference.rpartition(":")
    if target.endswith(".py"):
        module = import_file(folder / target)
    else:
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        try:
            module = importlib.import_module(target)
        except (Exception, SystemExit) as error:
            raise ExperimentError(reference, [_import_fault(folder / target, error)]) from error
    if not hasattr(module, name):
        known = [known for known in vars(module) if not known.startswith("_")]
        raise ExperimentError(reference, [Fault("", f"{target} has no {name!r}", did_you_mean(name, known))])
    return getattr(module, name)
