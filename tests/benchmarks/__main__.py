"""Run scenarios, and print one table: ``python -m tests.benchmarks [SCENARIO...] [--rounds N] [--json FILE]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.benchmarks import (
    checkpoints,
    cluster_start,
    collect,
    commands,
    fashion_mnist,
    packing,
    resume,
    scale,
    trial_overhead,
)
from tests.benchmarks.harness import Measured, Scenario, notes, run, table

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        commands.SCENARIO,
        trial_overhead.SCENARIO,
        *cluster_start.SCENARIOS,
        packing.SCENARIO,
        resume.SCENARIO,
        collect.SCENARIO,
        checkpoints.SCENARIO,
        scale.SCENARIO,
        fashion_mnist.SCENARIO,
    )
}


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Time hpc-tune beside its peers.")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"{', '.join(SCENARIOS)}; none: all")
    parser.add_argument("--rounds", type=int, help="how often the contenders take turns")
    parser.add_argument("--small", action="store_true", help="small sizes, one round: to see whether it works")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="sizes, such as trials=50 or nodes=8")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all that was measured")
    arguments = parser.parse_args()
    # one started in the background ignores it, and so would the searches that it interrupts
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if unknown := set(arguments.scenarios) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    given = {key: int(value) for key, _, value in (each.partition("=") for each in arguments.set)}
    chosen = [_sized(SCENARIOS[name], given, small=arguments.small) for name in arguments.scenarios or SCENARIOS]
    measured: list[Measured] = []
    for scenario in chosen:
        measured += run(scenario, arguments.rounds or (1 if arguments.small else scenario.rounds))
        if arguments.json:  # also of what an interrupt leaves unfinished
            record = {
                "date": str(date.today()),
                "cores": os.cpu_count(),
                "measured": [asdict(each) for each in measured],
            }
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    print("\n".join(report(measured, chosen)))


def _sized(scenario: Scenario, given: Mapping[str, int], *, small: bool) -> Scenario:
    size = dict(scenario.small if small else scenario.size)
    return replace(scenario, size=size | {key: value for key, value in given.items() if key in size})


def report(measured: list[Measured], chosen: list[Scenario]) -> Iterator[str]:
    """Yield the lines of what is to be read."""
    versions: Any = [f"{name} {metadata.version(name)}" for name in ("ray", "torch")]
    yield f"{date.today()}, {os.cpu_count()} cores, Python {platform.python_version()}, {', '.join(versions)}\n"
    yield from table(measured, chosen)
    yield ""
    yield from notes(measured, chosen)


if __name__ == "__main__":
    main()
