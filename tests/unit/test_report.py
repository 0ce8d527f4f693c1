"""The report: its numbers are those of the tables, and each part says what happened."""

from __future__ import annotations

import csv
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hpc_tune
from hpc_tune.errors import RunError, UsageError
from hpc_tune.operations.report import report
from hpc_tune.results.images import LARGEST, MOST
from hpc_tune.run import RunDir
from tests.unit.made_results import PNG, START, MadeTrials, Page, curve
from tests.unit.made_runs import MadeRun, ended, searching

ASHA: dict[str, Any] = {"name": "asha", "max_t": 8, "grace_period": 2, "reduction_factor": 2}
SPACE: dict[str, Any] = {"lr": {"loguniform": [1e-4, 1]}, "opt": {"name": {"choice": ["sgd", "adam"]}}, "seed": 3}


@pytest.fixture
def search(project: Any, runs_dir: Path) -> Callable[..., RunDir]:
    def create(**changes: Any) -> RunDir:
        run: RunDir = project.create_run(runs_dir, **({"space": SPACE, "num_samples": 12} | changes))
        return run

    return create


@pytest.fixture
def asha(search: Callable[..., RunDir]) -> RunDir:
    """Twelve trials: every third goes through, one fails, the others are stopped at 2 or 4."""
    run = search(trial_scheduler=ASHA, trial={"cpus": 2, "gpus": 1})
    trials = MadeTrials(run)
    for number in range(12):
        length = (8, 2, 4)[number % 3]
        failed = number == 7
        config = {"lr": 10 ** (-number / 4), "opt": {"name": "sgd" if number % 2 else "adam"}, "seed": 3}
        trials.add(
            f"t_{number:05d}",
            curve(0.9 - 0.05 * number, length),
            config=config,
            status="ERROR" if failed else "TERMINATED",
            error="ValueError: lr too small" if failed else None,
            start=START + 4 * number,
            node=f"iris-{169 + number % 2}",
            checkpoints={length: b"weights"},
        )
    return run


def reported(*runs: RunDir, output: Path | None = None) -> Page:
    return Page(report(runs, output=output).file)


def rows(run: RunDir, name: str) -> list[dict[str, str]]:
    with (run.path / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------------------- numbers


def test_the_answer_is_that_of_the_tables(asha: RunDir) -> None:
    page = reported(asha)
    (summary,) = rows(asha, "summary")
    assert page.value("best-value") == summary["best_value"]
    assert page.value("best-iteration") == summary["best_iteration"]
    assert page.section("best-trial") == summary["best_trial"] == "t_00000"
    second = sorted((float(row["best_value"]) for row in rows(asha, "trials")), reverse=True)[1]
    assert float(page.value("runner-up")) == second
    config = {"lr": 1.0, "opt": {"name": "adam"}, "seed": 3}
    assert tomllib.loads(page.section("config"))["space"] == config
    assert "trials 12: 4 finished, 7 stopped early, 1 failed" in page.words


def test_each_number_that_is_drawn_stands_in_the_tables(asha: RunDir) -> None:
    page = reported(asha)
    history = {(row["trial_id"], row["training_iteration"], row["accuracy"]) for row in rows(asha, "history")}
    drawn = set()
    for trace in page.figures["learning-curves"]["data"]:
        points = page.trace("learning-curves", trace["name"])
        drawn |= {
            (name, str(x), str(y)) for name, x, y in zip(points["text"], points["x"], points["y"], strict=True) if x
        }
    assert drawn == history

    values = {row["trial_id"]: row["best_value"] for row in rows(asha, "trials")}
    rates = {row["trial_id"]: row["config/lr"] for row in rows(asha, "trials")}
    seen: dict[str, tuple[str, str]] = {}
    for word in ("finished", "stopped early", "failed"):
        points = page.trace("hyperparameter-lr", word)
        pairs = zip(points["x"], points["y"], strict=True)
        seen |= dict(zip(points["text"], [(str(x), str(y)) for x, y in pairs], strict=True))
    assert seen == {trial_id: (rates[trial_id], values[trial_id]) for trial_id in values}
    losses = page.trace("metric-loss", "best")
    of_best = [row for row in rows(asha, "history") if row["trial_id"] == losses["text"][0]]
    drawn = zip(losses["x"][:-1], losses["y"][:-1], strict=True)
    assert [(str(x), str(y)) for x, y in drawn] == [(row["training_iteration"], row["loss"]) for row in of_best]
    best = page.trace("best-over-trials", "best so far")["y"]
    assert [str(value) for value in best] == [max(values.values(), key=float)] * 12


def test_the_share_that_trained_is_that_of_the_summary(asha: RunDir) -> None:
    made = MadeRun(asha)
    made.attempt("1", ago=3600.0, nodes=2, outcome=ended("interrupted", "walltime", ago=1800.0))
    made.attempt("2", ago=1800.0, nodes=2, outcome=ended("completed", "all trials have ended"))
    page = reported(asha)
    (summary,) = rows(asha, "summary")
    assert f'<data value="{summary["gpu_hours"]}">' in page.text
    percent = 100 * float(summary["gpu_hours"]) / 2.0  # an hour of two nodes with a GPU each
    assert f"allocated GPU-hours trained: {percent:.1f} %" in page.words
    assert "attempts 2 (1 interrupted, 1 completed)" in page.words


def test_of_long_curves_first_last_and_best_are_kept(search: Callable[..., RunDir], monkeypatch: Any) -> None:
    from hpc_tune.results.report import curves

    monkeypatch.setattr(curves, "MOST_POINTS", 20)
    run = search()
    MadeTrials(run).add("t_0", [0.1] * 70 + [0.9] + [0.2] * 29)
    page = reported(run)
    points = page.trace("learning-curves", "best")
    assert points["x"][0] == 1
    assert points["x"][-2] == 100
    assert dict(zip(points["x"], points["y"], strict=True))[71] == 0.9
    assert len(points["x"]) <= 22
    assert "at most 20 of its iterations are drawn" in page.words


# ------------------------------------------------------------------------------- the page


def test_the_page_needs_nothing_else(asha: RunDir) -> None:
    made = report([asha])
    assert made.file == asha.path / "report.html"
    page = Page(made.file)
    assert "<link" not in page.text
    assert "<script src" not in page.text
    assert "default-src 'none'" in page.text
    assert page.text.count("plotly.js v") >= 1
    assert made.size == made.file.stat().st_size < 6_000_000
    assert set(page.figures) == set(made.plots)
    assert {path.name for path in made.tables} == {"trials.csv", "history.csv", "summary.csv"}


def test_no_name_breaks_the_page(search: Callable[..., RunDir]) -> None:
    evil = '</script><script>alert("1")</script><!--'
    run = search()
    trials = MadeTrials(run)
    for number in range(3):
        trials.add(
            f"t_{number}", [0.1 * number], config={evil: number, "é": f"{evil}{number}"}, error=evil, status="ERROR"
        )
    page = reported(run)
    assert evil not in page.text
    assert f"hyperparameter-{evil}" in page.figures
    assert evil in page.section("config").replace('\\"', '"')


def test_a_run_without_results_says_so(search: Callable[..., RunDir]) -> None:
    page = reported(search())
    assert "No trial has reported accuracy yet" in page.words
    assert page.figures == {}


def test_a_report_that_cannot_be_written_leaves_the_old_one(asha: RunDir, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*No such file") as caught:
        report([asha], output=tmp_path / "none" / "report.html")
    assert caught.value.hint == "choose another place with --output FILE"


def test_ray_is_not_needed(asha: RunDir) -> None:
    code = (
        "import sys; from pathlib import Path; from hpc_tune.run import RunDir;"
        "from hpc_tune.operations.report import report;"
        f"report([RunDir(Path({str(asha.path)!r}))]); assert 'ray' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------- its parts


def test_asha_shows_who_was_stopped_where(asha: RunDir) -> None:
    page = reported(asha)
    stopped = page.trace("rungs", "stopped here")
    on = page.trace("rungs", "went on")
    at_two = {"t_00001", "t_00004", "t_00010"}
    assert set(stopped["text"][:3]) == at_two
    assert set(stopped["text"][3:]) == {f"t_{number:05d}" for number in (2, 5, 8, 11)}
    assert "t_00007" in on["text"], "it failed there, which is nobody's decision"
    labels = page.figures["rungs"]["layout"]["xaxis"]["ticktext"]
    assert labels == ["2<br>3 of 12 stopped", "4<br>4 of 8 stopped"]


def test_a_trial_that_reached_its_target_was_not_stopped_early(search: Callable[..., RunDir]) -> None:
    run = search(trial_scheduler=ASHA, stop={"accuracy": 0.95})
    trials = MadeTrials(run)
    trials.add("t_0", [0.1] * 8)
    trials.add("t_1", [0.5, 0.96])
    trials.add("t_2", [0.1, 0.2])
    assert "trials 3: 2 finished, 1 stopped early" in reported(run).words


def test_a_population_shows_schedules_and_lineage(search: Callable[..., RunDir]) -> None:
    mutations = {"lr": {"uniform": [0, 1]}}
    run = search(trial_scheduler={"name": "pbt", "perturbation_interval": 2, "hyperparam_mutations": mutations})
    trials = MadeTrials(run)
    trials.add("t_0", curve(0.9, 6), config={"lr": 0.5}, tag="0_lr=0.5")
    trials.add("t_1", curve(0.5, 6), config={"lr": 0.2}, tag="1_lr=0.2")
    trials.exploits(("1_lr=0.2", "0_lr=0.5", 2, 2, {"lr": 0.6}), ("1_lr=0.2", "0_lr=0.5", 4, 5, {"lr": 0.7}))
    page = reported(run)
    steps = page.trace("schedule-lr", "t_1")
    assert list(zip(steps["x"], steps["y"], strict=True)) == [(0, 0.2), (2, 0.6), (5, 0.7), (6, 0.7)]
    assert page.trace("schedule-lr", "t_0 (best)")["y"] == [0.5, 0.5]
    said = [text for trace in page.figures["lineage"]["data"] for text in decoded_text(trace)]
    assert "t_1 (after 4) went on from t_0 (after 5)" in said
    assert "these are the last ones" in page.words
    assert hpc_tune.load_run(run.path).exploits.values.tolist() == [["t_1", "t_0", 2, 2], ["t_1", "t_0", 4, 5]]


def decoded_text(trace: dict[str, Any]) -> list[str]:
    text = trace.get("text")
    return text if isinstance(text, list) else []


def test_the_hyperparameter_that_matters_is_the_most_important(search: Callable[..., RunDir]) -> None:
    run = search()
    trials = MadeTrials(run)
    for number in range(40):
        config = {"lr": 10 ** (-(number % 8) / 2), "opt": {"name": "sgd" if number % 3 else "adam"}, "seed": 3}
        trials.add(f"t_{number:05d}", [0.9 - 0.1 * (number % 8)], config=config)
    bars = reported(run).figures["importance"]["data"][0]
    assert bars["y"] == ["opt/name", "lr"]
    assert bars["x"][1] > 0.8


def test_hyperparameters_of_any_kind_are_drawn(search: Callable[..., RunDir]) -> None:
    run = search()
    trials = MadeTrials(run)
    for number in range(16):
        config = {"on": number % 2 == 0, "sizes": [number % 3, 1], "mixed": number if number % 2 else "auto", "lr": 0.1}
        if number % 4:
            config |= {"units": 2**number, "momentum": 0.1 * number}
        trials.add(f"t_{number:02d}", [0.05 * number], config=config | {"none": None if number % 2 else 1})
    page = reported(run)
    names = {"on", "sizes", "mixed", "units", "momentum", "none"}
    assert {f"hyperparameter-{name}" for name in names} <= set(page.figures)
    assert set(page.figures["importance"]["data"][0]["y"]) == names
    drawn = page.trace("hyperparameter-units", "finished")
    assert dict(zip(drawn["text"], drawn["x"], strict=True))["t_05"] == 32


def test_a_live_populations_log_lies_in_the_state(search: Callable[..., RunDir]) -> None:
    from hpc_tune.results.population import read_population

    run = search()
    trials = MadeTrials(run)
    trials.add("t_0", [0.1], config={"opt": {"lr": 0.5}}, tag="0_x")
    with zipfile.ZipFile(run.storage / "state.zip", "a") as archive:
        archive.writestr("pbt_global.txt", '["0_x", "1_y", 1, 2, {}, {"opt": {"lr": 0.6}}]\n["half')
    population = read_population(run.storage)
    assert population.schedule("t_0", "opt/lr") == [(0, 0.5), (2, 0.6)]
    assert population.exploits[0].source_id == "1_y", "a trial that the state does not know keeps its name"


def test_few_trials_have_no_importance(search: Callable[..., RunDir]) -> None:
    run = search()
    trials = MadeTrials(run)
    for number in range(4):
        trials.add(f"t_{number}", [0.1 * number], config={"lr": 0.1 * number, "wd": number})
    page = reported(run)
    assert "importance" not in page.figures
    assert "Importances need at least 10 trials with a value; there are 4 trials with a value." in page.words


def test_trials_share_the_slots_of_their_node(search: Callable[..., RunDir]) -> None:
    run = search()
    trials = MadeTrials(run)
    trials.add("t_0", [0.1] * 5, start=START)
    trials.add("t_1", [0.2] * 5, start=START + 4)
    trials.add("t_2", [0.3] * 5, start=START + 10)
    folder = trials.add("t_3", [0.4] * 2, start=START, node="iris-170")
    trials.report(folder, [0.4, 0.5], start=START + 100, node="iris-169", first=2)  # again, after an interruption
    page = reported(run)
    assert page.figures["timeline"]["layout"]["yaxis"]["ticktext"] == ["iris-169 · 0", "iris-169 · 1", "iris-170 · 0"]
    (bars,) = page.figures["timeline"]["data"]
    placed = sorted(zip(bars["text"], bars["y"], bars["customdata"], strict=True))
    assert placed == [("t_0", 0, 5), ("t_1", 1, 5), ("t_2", 0, 5), ("t_3", 0, 2), ("t_3", 2, 2)]


def test_failures_are_grouped_by_error(search: Callable[..., RunDir]) -> None:
    run = search()
    trials = MadeTrials(run)
    for number in range(12):
        error = "ValueError: too big" if number else "MemoryError"
        trials.add(f"t_{number:02d}", [0.1], status="ERROR", error=error)
    words = reported(run).words
    assert (
        "11 ValueError: too big t_01, t_02, t_03, t_04, t_05, t_06, t_07, t_08 and 3 more 1 MemoryError t_00" in words
    )


def test_images_of_trials_are_shown_the_bests_first(search: Callable[..., RunDir]) -> None:
    run = search()
    trials = MadeTrials(run)
    for number in range(MOST + 2):
        folder = trials.add(f"t_{number:02d}", [0.1 * number], checkpoints={1: b"x"})
        (folder / "confusion.png").write_bytes(PNG)
    (folder / "plots").mkdir()
    (folder / "plots" / "large.png").write_bytes(PNG + bytes(LARGEST))
    (folder / "not.png").write_bytes(b"text")
    for trial_id in ("t_00", "t_13"):
        (run.storage / trial_id / "checkpoint_000000" / "inside.png").write_bytes(PNG)
    page = reported(run)
    assert page.text.count('<img src="data:image/png;base64,iVBOR') == MOST
    shown = ["t_13 · checkpoint_000000/inside.png", "t_13 · confusion.png", "t_00 · confusion.png"]
    places = [page.words.index(each) for each in shown]
    assert places == sorted(places)
    assert "5 more, or larger ones, are in the trials' folders" in page.words
    assert page.words.count("inside.png") == 1, "only the best checkpoint is looked into"


# ------------------------------------------------------------------------------- several runs


def test_several_runs_are_compared_the_best_first(search: Callable[..., RunDir], tmp_path: Path) -> None:
    runs = [search(name="low"), search(name="high", mode="max")]
    for number, run in enumerate(runs):
        trials = MadeTrials(run)
        trials.add("t_0", [0.1 + number])
        trials.add("t_1", [0.2 + number])
    page = reported(*runs, output=tmp_path / "both.html")
    assert page.value("best-value") == "1.2"
    table = page.section("runs").split()
    assert table.index(runs[1].name) < table.index(runs[0].name)
    for run in runs:
        (summary,) = rows(run, "summary")
        best = page.trace("best-over-trials", run.name)
        assert str(best["y"][-1]) == summary["best_value"]
    assert [len(each["y"]) > 0 for each in page.figures["values"]["data"]] == [True, True]


def test_runs_with_other_metrics_are_not_compared(search: Callable[..., RunDir], tmp_path: Path) -> None:
    runs = [search(), search(metric="loss", mode="min")]
    with pytest.raises(UsageError, match=r"searches for the max of accuracy, .* for the min of loss") as caught:
        report(runs, output=tmp_path / "both.html")
    assert caught.value.hint is not None
    assert not (tmp_path / "both.html").exists()


def test_wall_time_leaves_out_the_time_between_attempts() -> None:
    from hpc_tune.results.report.curves import hours_at_work
    from hpc_tune.results.report.view import AttemptSpan

    attempts = [AttemptSpan(1, 0, 3600, 1, 1, 0), AttemptSpan(2, 36000, 43200, 1, 1, 0)]
    assert hours_at_work([1800, 20000, 36000, 39600, 99999], attempts) == [0.5, 1.0, 1.0, 2.0, 3.0]
    assert hours_at_work([100, 3700], []) == [0.0, 1.0]


def test_a_live_run_is_shown_as_it_is(search: Callable[..., RunDir]) -> None:
    run = search(metric="loss", mode="min")
    MadeTrials(run).add("t_0", [0.1, 0.4], status="RUNNING")
    MadeRun(run).attempt(ago=60, progress=searching())
    page = reported(run)
    assert page.value("best-value") == "0.6"
    assert "(lower is better)" in page.words
    assert "attempts 1 (1 not ended)" in page.words
