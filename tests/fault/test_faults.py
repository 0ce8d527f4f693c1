"""Nothing is lost, whatever happens to a search on a cluster.

Each scenario is a run on nodes of its own; what its faults did to it becomes a line of the table at the end of the
session. To repeat one: ``HPC_TUNE_FAULT_SEED=… pytest tests/fault -k "driver"``.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fault.scenarios import SCENARIOS, Scenario

pytestmark = [pytest.mark.fault, pytest.mark.slurm]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.fault)
def test_nothing_is_lost(scenario: Scenario, played: Callable[[Scenario], None]) -> None:
    played(scenario)
