"""Contenders that take turns in one benchmark run, and the table of what they took.

Ratios compare two contenders of the same round: on a machine that others use, seconds say little.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, Literal

HPC_TUNE = str(Path(sys.executable).with_name("hpc-tune"))
Measures = Mapping[str, float]
Contender = Callable[[], Measures]


@dataclass(frozen=True)
class Row:
    """One line of the table: a measure of one contender, alone or beside another's of the same round.

    ``what``, as all that is said of a scenario, may name its sizes: ``{trials} trials``.
    """

    what: str
    ours: str
    peer: str | None = None
    measure: str = "seconds"
    kind: Literal["ratio", "difference", "value"] = "ratio"
    at_most: float | None = None
    at_least: float | None = None
    unit: str = ""

    def values(self, measured: list[Measured]) -> list[float]:
        """Return the value of each round in which all that it takes was measured."""
        own, other = (
            {each.round: each.measures[self.measure] for each in measured
             if each.contender == name and self.measure in each.measures}
            for name in (self.ours, self.peer)
        )  # fmt: skip
        if self.kind == "value":
            return list(own.values())
        both = [(own[number], other[number]) for number in own if number in other]
        return [a / b if self.kind == "ratio" else a - b for a, b in both]

    def target(self) -> str:
        """Return what is to be reached, in words."""
        if self.at_most is not None:
            return f"at most {self.at_most:g}{self.unit}"
        return f"at least {self.at_least:g}{self.unit}" if self.at_least is not None else ""

    def verdict(self, value: float) -> str:
        """Tell whether a value reaches the target."""
        if self.at_most is None and self.at_least is None:
            return ""
        missed = (self.at_most is not None and value > self.at_most) or (
            self.at_least is not None and value < self.at_least
        )
        return "no" if missed else "yes"


@dataclass(frozen=True)
class Scenario:
    """Something people wait for, done by us and by others."""

    name: str
    about: str
    prepare: Callable[..., AbstractContextManager[Mapping[str, Contender]]]
    """Takes a folder of its own and the size; what it makes is not timed."""
    rows: tuple[Row, ...]
    how: Mapping[str, str]
    """How each contender was run."""
    size: Mapping[str, Any]
    small: Mapping[str, Any]
    """Quick to try; its ratios mean nothing."""
    rounds: int = 5
    minutes: float = 4.0
    """After its first round a contender that would probably end later takes no turn: slow peers take fewer."""


@dataclass(frozen=True)
class Measured:
    """What one contender took in one round."""

    scenario: str
    contender: str
    round: int
    measures: dict[str, float] = field(default_factory=dict)
    problem: str | None = None
    """Why there are no measures."""


def run(scenario: Scenario, rounds: int) -> list[Measured]:
    """Have the contenders take turns; one that fails costs the round its own row, and nothing else."""
    measured: list[Measured] = []
    folder = Path(tempfile.mkdtemp(prefix=f"hpc-tune-bench-{scenario.name}-", dir="/var/tmp"))  # nodes hide /tmp
    begin, took = time.monotonic(), dict[str, float]()
    try:
        with scenario.prepare(folder, **scenario.size) as contenders:
            for number, (name, contender) in product(range(1, rounds + 1), contenders.items()):
                now = time.monotonic()
                if name in took and now - begin + took[name] > 60 * scenario.minutes:
                    continue
                measured.append(_measured(scenario.name, name, number, contender))
                took[name] = time.monotonic() - now
                print(_said(measured[-1]), file=sys.stderr, flush=True)
    except Exception as error:  # noqa: BLE001 - the other scenarios can still be measured
        measured.append(Measured(scenario.name, "", 0, problem=_problem(error)))
        print(_said(measured[-1]), file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return measured


def _measured(scenario: str, name: str, number: int, contender: Contender) -> Measured:
    try:
        return Measured(scenario, name, number, dict(contender()))
    except Exception as error:  # noqa: BLE001 - the other contenders can still be measured
        return Measured(scenario, name, number, problem=_problem(error))


def _problem(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno}: {str(error)[-2000:]}"


def _said(each: Measured) -> str:
    what = each.problem or ", ".join(f"{name} {value:.3g}" for name, value in each.measures.items())
    return f"{each.scenario}, round {each.round}, {each.contender}: {what} (load {os.getloadavg()[0]:.1f})"


def table(measured: list[Measured], scenarios: list[Scenario]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield "| | compared | median | min to max | rounds | target | met |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | --- |"
    for scenario in scenarios:
        of = [each for each in measured if each.scenario == scenario.name]
        for row in scenario.rows:
            what = row.what.format(**scenario.size)
            compared = f"{row.ours} / {row.peer}" if row.kind == "ratio" else row.ours
            compared = f"{row.ours} - {row.peer}" if row.kind == "difference" else compared
            if not (values := row.values(of)):
                yield f"| {what} | {compared} | not measured | | 0 | {row.target()} | |"
                continue
            middle, unit = median(values), row.unit
            spread = f"{min(values):.3g} to {max(values):.3g}"
            yield (
                f"| {what} | {compared} | {middle:.3g}{unit} | {spread} | {len(values)} "
                f"| {row.target()} | {row.verdict(middle)} |"
            )


def notes(measured: list[Measured], scenarios: list[Scenario]) -> Iterator[str]:
    """Yield how each contender was run, and what failed."""
    for scenario in scenarios:
        yield f"- **{scenario.name}**: {scenario.about.format(**scenario.size)}"
        yield from (f"  - {name}: {how.format(**scenario.size)}" for name, how in scenario.how.items())
    for each in measured:
        if each.problem:
            yield f"- {each.scenario}, round {each.round}, {each.contender} failed: {each.problem.splitlines()[0]}"


# --------------------------------------------------------------------------------------------- commands


MEASURE = """\
import json, os, resource, subprocess, sys, time
begin = time.perf_counter()
code = subprocess.call(sys.argv[2:])
seconds, used = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    cpu = used.ru_utime + used.ru_stime
    json.dump({"seconds": seconds, "cpu_seconds": cpu, "peak_mb": used.ru_maxrss / 1024}, file)
sys.exit(code)
"""
"""A small process that starts the command: the kernel counts the memory of whoever starts one as its own."""


def command(
    argv: list[str], *, cwd: Path | None = None, patience: float = 900.0, expected: tuple[int, ...] = (0,)
) -> dict[str, float]:
    """Run a command; return its seconds, and the CPU seconds and the peak MB of it and its children."""
    environment = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"} | os.environ
    with tempfile.TemporaryFile() as said, tempfile.NamedTemporaryFile() as report:
        measured = [sys.executable, "-S", "-c", MEASURE, report.name]
        limited = ["timeout", "--kill-after=10", f"{patience:.0f}", *argv]
        process = subprocess.run([*measured, *limited], stdout=said, stderr=said, cwd=cwd, env=environment)
        said.seek(0)
        if process.returncode not in expected:
            raise RuntimeError(f"{' '.join(argv)} ended with {process.returncode}: {said.read().decode()[-1500:]}")
        measures: dict[str, float] = json.load(report)
        return measures
