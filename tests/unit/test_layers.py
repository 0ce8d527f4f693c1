"""The layers of the package: arrows point down only, and what is heavy is imported where it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "hpc_tune"
MODULES = sorted(PACKAGE.rglob("*.py"))
LEVELS = {
    "errors": 0, "experiment": 0,
    "durable": 1, "room": 1, "process": 1, "machine": 1, "progress": 1, "snapshot": 1, "attempt": 1, "lock": 1,
    "followup": 1, "run": 1, "results": 1, "chain": 1, "line": 1, "site": 1, "request": 1, "jobscript": 1,
    "slurm": 2, "runtime": 2,
    "operations": 3,
    "render": 4, "cli": 4, "__main__": 4,
}  # fmt: skip
HEAVY = {"ray", "torch", "pandas", "plotly", "rich", "jinja2", "submitit", "numpy"}


def _noun(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_down(path: Path) -> None:
    if (noun := _noun(path)) == "__init__":
        return
    for name in _imports(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] == "hpc_tune" and len(parts) > 1:
            assert LEVELS[parts[1]] <= LEVELS[noun], f"{path.name} imports {name}"
        if parts[0] == "ray":
            assert noun == "runtime", f"{path.name} imports ray"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_where_they_are_used(path: Path) -> None:
    if _noun(path) == "runtime":
        return
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    for name in _imports(ast.Module(top, [])):
        assert name.split(".")[0] not in HEAVY, f"{path.name} imports {name} when it is itself imported"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from hpc_tune.cli import cli;"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0;"
        "print([name for name in ('ray', 'torch', 'pandas', 'pydantic') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"
