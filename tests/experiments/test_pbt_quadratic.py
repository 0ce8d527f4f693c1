"""Ray's "Visualizing PBT": a population passes what its members cannot pass alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.ray.conftest import Search

pytestmark = pytest.mark.experiment


def test_without_pbt_the_trials_end_at_their_limits(copied: Callable[[str], Search]) -> None:
    search = copied("pbt_quadratic")
    search.call("run", "grid.py")
    assert [float(row["Q"]) for row in search.table()] == pytest.approx([1.2 - 0.75 * 0.81, 1.2 - 0.81], abs=1e-4)


def test_the_population_passes_both_limits_and_its_paths_are_drawn(copied: Callable[[str], Search]) -> None:
    search = copied("pbt_quadratic")
    search.call("run", "pbt.py", "--set", "seed=1")
    assert [row["iterations"] for row in search.table()] == ["100", "100"]
    assert max(float(row["best_value"]) for row in search.table()) > 1.15
    draw = [sys.executable, "plot.py", str(search.directory), "paths.html"]
    subprocess.run(draw, cwd=search.folder, check=True, timeout=60)
    page = (search.folder / "paths.html").read_text()
    assert all(f"{row['trial_id']} leaves" in page for row in search.table()), "somebody's exploits are not marked"
