"""The report opened in a browser, without a network: no complaint, each plot drawn, nothing wider than a phone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpc_tune.errors import UsageError
from hpc_tune.operations.report import report
from hpc_tune.run import RunDir
from tests.chromium import browser, check_drawn, show
from tests.unit.made_results import START, MadeTrials, Page, curve
from tests.unit.made_runs import MadeRun, ended

SPACE = {"lr": {"loguniform": [1e-4, 1]}, "opt": {"name": {"choice": ["sgd", "adam"]}}}
PBT = {"name": "pbt", "perturbation_interval": 2, "hyperparam_mutations": {"lr": {"uniform": [0, 1]}}}
MEASURE = """<script>
addEventListener("load", () => setInterval(() => {
  document.documentElement.dataset.wider = document.documentElement.scrollWidth - document.documentElement.clientWidth;
}, 50));
</script></body>"""


@pytest.fixture
def run(project: Any, runs_dir: Path) -> RunDir:
    """A population of twelve in two attempts, with failures, so that nearly every plot has something to show."""
    created: RunDir = project.create_run(runs_dir, space=SPACE, num_samples=12, trial_scheduler=PBT)
    trials = MadeTrials(created)
    for number in range(12):
        config = {"lr": 10 ** (-number / 4), "opt": {"name": "sgd" if number % 2 else "adam"}}
        error = "ValueError: <b>lr</b> too small" if number == 7 else None
        status = "ERROR" if error else "TERMINATED"
        trials.add(
            f"t_{number:05d}", curve(0.9 - 0.05 * number, 2 + number % 5), config=config, status=status, error=error,
            start=START + 4 * number, node=f"iris-{169 + number % 2}", tag=f"{number}_",
        )  # fmt: skip
    trials.exploits(("3_", "0_", 2, 2, {"lr": 0.6}), ("5_", "4_", 4, 5, {"lr": 0.7}))
    made = MadeRun(created)
    made.attempt("1", ago=3600.0, nodes=2, outcome=ended("interrupted", "walltime", ago=1800.0))
    made.attempt("2", ago=1800.0, nodes=2, outcome=ended("completed", "all trials have ended"))
    return created


def test_each_plot_is_drawn_and_the_answer_is_right(run: RunDir, tmp_path: Path) -> None:
    made = report([run])
    shown = show(made.file, tmp_path / "profile")
    check_drawn(shown, set(made.plots))
    assert {"lineage", "schedule-lr", "timeline", "importance", "learning-curves"} <= set(shown.plots)
    (tmp_path / "dom.html").write_text(shown.dom)
    page = Page(tmp_path / "dom.html")
    assert page.section("best-trial").strip() == "t_00003"
    assert f"{float(page.value('best-value')):.6g}" == page.section("best-value")
    assert "ValueError: <b>lr</b> too small" in page.words, "as text, not as a tag"


def test_several_runs_are_drawn_together(run: RunDir, project: Any, runs_dir: Path, tmp_path: Path) -> None:
    other = project.create_run(runs_dir, name="other")
    MadeTrials(other).add("t_0", [0.1, 0.2])
    made = report([run, other], output=tmp_path / "both.html")
    check_drawn(show(made.file, tmp_path / "profile"), set(made.plots))


def test_nothing_is_wider_than_a_phone(run: RunDir, tmp_path: Path) -> None:
    page = tmp_path / "measured.html"
    page.write_text(report([run]).file.read_text().replace("</body>", MEASURE))
    shown = show(page, tmp_path / "profile", width=500, dark=True)
    assert 'data-wider="0"' in shown.dom[:2000]
    assert "fill: rgb(216, 216, 216)" in shown.plots["learning-curves"], "light ink on a dark page"


def test_a_complaint_would_be_heard(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<script>console.error("heard"); nowhere();</script>')
    console = "\n".join(show(page, tmp_path / "profile").console)
    assert "heard" in console
    assert "nowhere is not defined" in console


def test_the_plots_are_written_for_a_paper(run: RunDir, tmp_path: Path) -> None:
    browser()
    command = [sys.executable, "-m", "hpc_tune", "report", str(run.path), "--png", str(tmp_path / "plots"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert len(record["images"]) == len(record["plots"])
    assert {Path(path).name for path in record["images"]} >= {"learning-curves.png", "hyperparameter-opt-name.png"}
    for path in record["images"]:
        assert Path(path).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("taken", "missing", "hint"),
    [
        ("importlib.util.find_spec", "the package kaleido", "pip install"),
        ("choreographer.browsers.chromium.Chromium.find_browser", "a Chrome or Chromium", "camera"),
    ],
)
def test_what_is_missing_for_images_is_said(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str, missing: str, hint: str
) -> None:
    from hpc_tune.results.report import png

    if taken.startswith("importlib"):
        monkeypatch.setattr(png, "find_spec", lambda name: None)
    else:
        monkeypatch.setattr(taken, lambda **options: None)
    with pytest.raises(UsageError, match=missing) as caught:
        report([run], png=tmp_path / "plots")
    assert caught.value.hint is not None
    assert hint in caught.value.hint
    assert not (run.path / "report.html").exists()
