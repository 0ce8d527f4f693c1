"""Which module may import which, who prints, and what is imported when."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "hpc_tune"
MODULES = sorted(PACKAGE.rglob("*.py"))
TALKERS = {"cli", "render"}
HEAVY = {"ray", "torch", "pandas", "plotly", "rich", "jinja2", "submitit"}
LEVELS = {
    "errors": 0, "experiment": 0,
    "durable": 1, "room": 1, "process": 1, "machine": 1, "progress": 1, "snapshot": 1, "attempt": 1, "lock": 1,
    "followup": 1, "run": 1, "results": 1, "chain": 1, "line": 1, "site": 1, "request": 1, "jobscript": 1,
    "slurm": 2, "runtime": 2,
    "operations": 3,
    "render": 4, "cli": 4, "__main__": 4,
}  # fmt: skip
SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def ran_on_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when the module is imported: not functions, not what only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        if not isinstance(node, SCOPES):
            yield from ran_on_import(node)


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Yield dotted names; ``from hpc_tune import render`` means ``hpc_tune.render``."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def upward(noun: str, tree: ast.AST) -> list[str]:
    names = [name.split(".") for name in imported(ast.walk(tree))]
    ours = [name[1] for name in names if name[0] == "hpc_tune" and not name[1].startswith("__")]
    return [name for name in ours if LEVELS[name] > LEVELS[noun]]


def heavy(tree: ast.AST) -> list[str]:
    return [name for name in imported(ran_on_import(tree)) if name.split(".")[0] in HEAVY]


def prints(tree: ast.AST) -> list[int]:
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    said = ("print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write")
    return [call.lineno for call in calls if ast.unparse(call.func) in said]


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_command_line_prints(path: Path) -> None:
    if path.relative_to(PACKAGE).parts[0] not in TALKERS:
        assert prints(ast.parse(path.read_bytes())) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_arrows_point_down_however_the_import_is_written(path: Path) -> None:
    noun = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if noun != "__init__":
        assert upward(noun, ast.parse(path.read_bytes())) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_what_runs_in_the_allocation_knows_ray(path: Path) -> None:
    names = {name.partition(".")[0] for name in imported(ast.walk(ast.parse(path.read_bytes())))}
    assert "runtime" in path.parts or "ray" not in names


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_heavy_is_imported_on_import(path: Path) -> None:
    if "runtime" not in path.parts:
        assert heavy(ast.parse(path.read_bytes())) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_bytes()))


def test_the_rules_see_what_breaks_them() -> None:
    assert upward("run", ast.parse("def f():\n    from hpc_tune import render")) == ["render"]
    assert upward("run", ast.parse("from hpc_tune.runtime.driver import main")) == ["runtime"]
    assert upward("cli", ast.parse("from hpc_tune import __version__, render\nimport hpc_tune.run")) == []
    assert heavy(ast.parse("try:\n    import ray.tune\nexcept ImportError:\n    pass")) == ["ray.tune"]
    assert heavy(ast.parse("class A:\n    from pandas import DataFrame")) == ["pandas.DataFrame"]
    assert heavy(ast.parse("if TYPE_CHECKING:\n    import rich\ndef f():\n    import ray")) == []
    assert prints(ast.parse("def f():\n    print(1)\n    click.echo(2)\n    log.info(3)")) == [2, 3]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("hpc_tune", {"ray", "torch", "pandas", "numpy", "pydantic", "click", "rich", "hpc_tune.experiment.spec"}),
        ("hpc_tune.cli", {"ray", "torch", "pandas", "numpy", "pydantic", "rich", "filelock", "hpc_tune.operations"}),
        ("hpc_tune.operations.local", {"ray", "torch", "pandas", "numpy", "rich"}),
        ("hpc_tune.operations.submit", {"ray", "torch", "pandas", "numpy", "rich"}),
        ("hpc_tune.operations.listing", {"ray", "torch", "pandas", "numpy", "rich", "pydantic"}),
        ("hpc_tune.operations.status", {"ray", "torch", "pandas", "numpy", "rich", "pydantic"}),
        ("hpc_tune.render", {"ray", "torch", "pandas", "numpy", "rich", "pydantic"}),
        ("hpc_tune.results.tables", {"ray", "torch", "pandas"}),
        ("hpc_tune.runtime.node", {"ray", "torch", "pandas", "numpy", "pydantic", "jinja2", "click", "rich"}),
    ],
)
def test_an_import_stays_light(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert module in loaded
    assert absent.isdisjoint(loaded), absent & set(loaded)


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from hpc_tune.cli import cli;"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0;"
        "print([name for name in ('ray', 'torch', 'pandas', 'pydantic') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"


def test_the_package_offers_the_experiment() -> None:
    import hpc_tune
    from hpc_tune.experiment.spec import Experiment

    assert hpc_tune.Experiment is Experiment
    with pytest.raises(AttributeError, match="has no attribute 'Experimnt'"):
        _ = hpc_tune.Experimnt
