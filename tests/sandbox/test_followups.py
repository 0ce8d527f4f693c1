"""A follow-up waits in a real Slurm for a run that goes on from job to job; small jobs leave the records of the run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hpc_tune_slurm.sandbox import Sandbox
from hpc_tune_slurm.sandbox.waiting import wait_until

from hpc_tune.followup import FollowUp
from tests.sandbox.test_status import OnSandbox, run_on
from tests.unit.made_results import MadeTrials
from tests.unit.made_runs import ended, searching

pytestmark = pytest.mark.slurm

SCORE = """\
import os

def evaluate(config, checkpoint):
    print("scored on", os.environ["SLURM_JOB_ID"], os.environ["SLURM_JOB_PARTITION"])
    return {"read": (checkpoint / "state.pt").read_text()}
"""


@pytest.fixture
def made(slurm_sandbox: Sandbox, cluster_dir: Path) -> Iterator[OnSandbox]:
    with run_on(slurm_sandbox, cluster_dir) as made:
        (made.run.code / "score.py").write_text(SCORE)
        try:
            yield made
        finally:
            made.command("cancel", "--now")


def shown(made: OnSandbox) -> dict[str, Any]:
    (followup,) = json.loads(made.command("status", "--json").stdout)["followups"]
    assert isinstance(followup, dict)
    return followup


def test_an_evaluation_waits_for_all_jobs_of_a_run(made: OnSandbox) -> None:
    first = made.send("sleep 300")
    made.reaches("starting")
    attempt = made.attempt(first, ago=1, progress=searching(RUNNING=1))
    asked = ["evaluate", "--after", made.run.name, "--function", "score.py:evaluate", "--partition", "gpu", "--json"]
    sent = json.loads(made.command(*asked, "--time", "2m").stdout)
    assert (sent["state"], sent["executor"]) == ("waiting", "slurm")
    assert shown(made)["reason"] == f"job {sent['job_id']}: it waits for another job to end"
    assert [job.job_id for job in made.status().jobs] == [first], "a follow-up is no job of the run"

    successor = made.send("sleep 300", f"--dependency=afterany:{first}")
    ended("interrupted", "the walltime is near").write(attempt.outcome_file)
    made.slurm.cancel([first])
    wait_until(lambda: shown(made)["job_id"] != sent["job_id"], "the evaluation is sent again", 60)
    waiting = shown(made)
    assert (waiting["state"], waiting["result"]) == ("waiting", {})

    MadeTrials(made.run).add("t_0", [0.4, 0.9], checkpoints={2: b"weights"})
    made.attempt(successor, ago=1, outcome=ended("completed", "all trials have ended"))
    made.slurm.cancel([successor])
    wait_until(lambda: shown(made)["state"] not in ("waiting", "running"), "the evaluation is over", 90)
    found = shown(made)
    assert (found["state"], found["result"].get("metrics")) == ("done", {"read": "weights"}), found
    (followup,) = FollowUp.of_run(made.run.path)
    assert f"scored on {found['job_id']} gpu" in followup.log(found["job_id"]).read_text()
    text = made.command("status").stdout
    assert "follow-up 001-evaluate: done after " in text
    assert ": read weights (trial t_0)" in text


def test_what_slurm_refuses_leaves_nothing(made: OnSandbox) -> None:
    MadeTrials(made.run).add("t_0", [0.4, 0.9], checkpoints={2: b"weights"})
    refused = made.command("evaluate", "--function", "score.py:evaluate", "--partition", "none")
    assert refused.returncode == 4
    assert "Invalid partition name specified" in refused.stderr
    assert "--partition" in refused.stderr
    assert "or do it on this machine: --here" in refused.stderr
    assert FollowUp.of_run(made.run.path) == []
