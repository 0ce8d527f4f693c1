"""From a file on disk to a checked experiment, or to all its faults at once."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hpc_tune.errors import ExperimentError, Fault, UsageError, refuse
from hpc_tune.experiment.algorithms import SearcherSpec, TrialSchedulerSpec, names, option_names
from hpc_tune.experiment.faults import describe, faults_of, known_keys
from hpc_tune.experiment.nearest import did_you_mean
from hpc_tune.experiment.source import check_reference, import_file
from hpc_tune.experiment.spec import Experiment

__all__ = ["SUFFIXES", "LoadedExperiment", "load_experiment", "load_experiments", "parse_override"]

SUFFIXES = (".toml", ".json", ".py")


@dataclass(frozen=True)
class LoadedExperiment:
    """A checked experiment and where it came from."""

    experiment: Experiment
    path: Path
    folder: Path
    """Where relative trainables are looked up."""


def load_experiment(path: Path, overrides: Sequence[str] = (), *, folder: Path | None = None) -> LoadedExperiment:
    """Read, merge and check an experiment file.

    Args:
        path: a ``.toml``, ``.json`` or ``.py`` file.
        overrides: ``KEY=VALUE`` texts, dotted keys, values as TOML.
        folder: where the trainable's file is looked up; the folder of ``path`` by default.

    Raises:
        ExperimentError: with every fault of the file, and of the trainable's source as far as it can be read
            without importing it.
        UsageError: for an override that is not ``KEY=VALUE``.
    """
    folder = (folder or path.parent).resolve()
    written = _read(path, folder)
    for override in overrides:
        key, value = parse_override(override)
        _set(written, key, value, path)
    experiment, faults = _validate(written)
    faults += _reference_faults(written, folder)
    if experiment is None or faults:
        raise ExperimentError(path, faults)
    return LoadedExperiment(experiment, path, folder)


def load_experiments(paths: Sequence[Path], overrides: Sequence[str] = ()) -> list[LoadedExperiment]:
    """Read, merge and check several experiment files.

    Raises:
        FaultyFile: with every fault of all files.
        UsageError: for an override that is not ``KEY=VALUE``.
    """
    loaded, faulty = [], []
    for path in paths:
        try:
            loaded.append(load_experiment(path, overrides))
        except ExperimentError as error:
            faulty.append(error)
    refuse(faulty)
    return loaded


def parse_override(text: str) -> tuple[list[str], Any]:
    """Split ``space.lr=0.01`` into its key path and its value; a value that is not TOML is taken as text.

    Raises:
        UsageError: if there is no ``=``.
    """
    key, separator, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not separator or not all(parts):
        raise UsageError(f"--set {text}: expected KEY=VALUE", hint="for example --set space.lr=0.01")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    return parts, parsed


def _read(path: Path, folder: Path) -> dict[str, Any]:
    if path.suffix not in SUFFIXES:
        raise ExperimentError(path, [Fault("", f"an experiment file ends in {', '.join(SUFFIXES)}")])
    try:
        if path.suffix == ".py":
            return _from_python(path, folder)
        text = path.read_text(encoding="utf-8-sig")  # Windows' editors begin a file with a mark
        parsed = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except FileNotFoundError:
        siblings = sorted(other.name for other in path.parent.glob("*") if other.suffix in SUFFIXES[:2])
        advice = did_you_mean(path.name, siblings) if siblings else None
        raise ExperimentError(path, [Fault("", "there is no such file", advice)]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(path, [Fault("", f"cannot be read: {error}")]) from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise ExperimentError(path, [Fault("", f"is not valid {path.suffix[1:].upper()}: {error}")]) from error
    if not isinstance(parsed, dict):
        raise ExperimentError(path, [Fault("", "expected an object with keys such as name, trainable, metric")])
    return parsed


def _from_python(path: Path, folder: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        module = import_file(folder / path.name if (folder / path.name).is_file() else path)
    except ValidationError as error:
        raise ExperimentError(path, faults_of(error, _fault)) from None
    experiment = getattr(module, "experiment", None)
    if not isinstance(experiment, Experiment):
        raise ExperimentError(
            path, [Fault("experiment", "is not defined", "write experiment = Experiment(name=..., ...)")]
        )
    return {key: getattr(experiment, key) for key in experiment.model_fields_set}


def _set(written: dict[str, Any], key: Sequence[str], value: Any, path: Path) -> None:
    table = written
    for depth, part in enumerate(key[:-1]):
        inner = table.get(part, {})
        if isinstance(inner, BaseModel):
            inner = {name: getattr(inner, name) for name in inner.model_fields_set}
        if not isinstance(inner, Mapping):
            where = ".".join(key[: depth + 1])
            raise ExperimentError(path, [Fault(".".join(key), f"cannot be set: {where} is {inner!r}, not a table")])
        table[part] = dict(inner)
        table = table[part]
    table[key[-1]] = value


def _validate(written: Mapping[str, Any]) -> tuple[Experiment | None, list[Fault]]:
    try:
        return Experiment.model_validate(written), []
    except ValidationError as error:
        return None, faults_of(error, _fault)


def _reference_faults(written: Mapping[str, Any], folder: Path) -> list[Fault]:
    checked = (check_reference(key, written.get(key), folder) for key in ("trainable", "data", "evaluate"))
    return [fault for fault in checked if fault is not None]


_SECTIONS: Mapping[str, Any] = {"searcher": SearcherSpec, "trial_scheduler": TrialSchedulerSpec}


def _fault(detail: Mapping[str, Any]) -> Fault:
    path = [str(part) for part in detail["loc"]]
    section = path[0] if path and path[0] in _SECTIONS else None
    if section is not None and detail["type"].startswith("union_tag"):
        return _unknown_algorithm(section, detail.get("input"))
    # pydantic puts the algorithm's name between the table and the option
    if section is not None and len(path) > 2:
        return describe(detail, ".".join([section, *path[2:]]), option_names(_SECTIONS[section], path[1]))
    return describe(detail, ".".join(path), known_keys(Experiment, path), examples=_EXAMPLES)


def _unknown_algorithm(section: str, given: Any) -> Fault:
    name = given.get("name") if isinstance(given, Mapping) else given
    problem = "is missing" if name is None else f"unknown name {name!r}"
    return Fault(f"{section}.name", problem, did_you_mean(str(name or ""), names(_SECTIONS[section])))


_EXAMPLES = {
    "name": 'write name = "my-search"',
    "trainable": 'write trainable = "train.py:train"',
    "metric": 'write metric = "mean_accuracy", a name that the trainable reports',
    "mode": 'write mode = "max", or "min"',
}
