"""The experiment state: what Ray Tune last saved; after a hard kill it is older than the trials' folders."""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import orjson

__all__ = ["ExperimentState", "TrialState", "read_state"]

_CHUNK = 2**20
_TRIALS_BEGIN = re.compile(r'"trial_data"\s*:\s*\[')
_SEPARATORS = re.compile(r"[\s,]*")
_DAMAGE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)
_PLACEHOLDERS = ("__ref_ph", "__fn_ph")  # ray.tune.impl.placeholder


@dataclass(frozen=True)
class TrialState:
    """A trial as the state knows it; ``folder`` is its folder's name in the storage path, if it has one.

    ``sampled`` holds what was drawn for it in the beginning, its keys joined by ``/``: a population changes the config
    later. ``tag`` is its name in the logs of a population.
    """

    trial_id: str
    status: str
    config: dict[str, Any]
    folder: str | None
    sampled: dict[str, Any] = field(default_factory=dict)
    tag: str = ""


@dataclass(frozen=True)
class ExperimentState:
    """The trials of the newest state that could be read, and the files that could not."""

    trials: tuple[TrialState, ...]
    unreadable: tuple[Path, ...]


def read_state(storage: Path) -> ExperimentState:
    """Read the newest whole experiment state of a storage path; no state at all is an empty one.

    Our own runtime packs the state into ``state.zip`` and keeps the one before as ``state.prev.zip``; plain
    Ray Tune leaves one ``experiment_state-<time>.json`` per session. Nothing is unpickled: an object
    in a config becomes None.
    """
    unreadable: list[Path] = []
    packed = [storage / "state.zip", storage / "state.prev.zip"]
    for path in [*packed, *sorted(storage.glob("experiment_state-*.json"), reverse=True)]:
        try:
            with _opened(path) as file:
                return ExperimentState(tuple(map(_trial_state, _trial_data(file))), tuple(unreadable))
        except FileNotFoundError:
            continue
        except _DAMAGE:
            unreadable.append(path)
    return ExperimentState((), tuple(unreadable))


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    if path.suffix != ".zip":
        with path.open(encoding="utf-8") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if Path(name).match("experiment_state-*.json")]
        if not names:
            raise ValueError(f"{path} holds no experiment state")
        with archive.open(max(names)) as member, io.TextIOWrapper(member, encoding="utf-8") as file:
            yield file


def _trial_data(file: TextIO) -> Iterator[Any]:
    """Yield the entries of ``trial_data`` one by one: the state of 10,000 trials would fill half a gigabyte.

    Raises:
        ValueError: if the file ends before the list does, or has none.
    """
    buffer, position = _from_trial_data(file)
    decoder = json.JSONDecoder()
    while True:
        position = _past_separators(buffer, position)
        if buffer.startswith("]", position):
            break
        try:
            entry, position = decoder.raw_decode(buffer, position)
        except ValueError:
            more = file.read(_CHUNK)
            if not more:
                raise
            buffer, position = buffer[position:] + more, 0
        else:
            yield entry
    while file.read(_CHUNK):  # a zip member's checksum is compared at its end
        pass


def _from_trial_data(file: TextIO) -> tuple[str, int]:
    buffer = ""
    while chunk := file.read(_CHUNK):
        buffer += chunk
        if found := _TRIALS_BEGIN.search(buffer):
            return buffer, found.end()
    raise ValueError("no trial_data")


def _past_separators(text: str, position: int) -> int:
    found = _SEPARATORS.match(text, position)
    return found.end() if found else position


def _trial_state(entry: Any) -> TrialState:
    """Read a pair of JSON strings: the trial's static state, and the runtime metadata, which is not needed.

    Raises:
        ValueError: if it is anything else.
    """
    if not (isinstance(entry, list) and entry and isinstance(entry[0], str)):
        raise ValueError("trial_data holds something that is not a trial")
    static = _loads(entry[0])
    if not (isinstance(static, dict) and isinstance(static.get("trial_id"), str)):
        raise ValueError("a trial without an id")
    config, folder = _plain(static.get("config")), static.get("relative_logdir")
    sampled = _plain(static.get("evaluated_params"))
    return TrialState(
        trial_id=static["trial_id"],
        status=str(static.get("status") or "PENDING"),
        config=config if isinstance(config, dict) else {},
        folder=folder if isinstance(folder, str) else None,
        sampled=sampled if isinstance(sampled, dict) else {},
        tag=str(static.get("experiment_tag") or "").partition("@")[0],
    )


def _loads(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:  # NaN is no JSON, but may stand in a config
        return json.loads(text)


def _plain(value: Any) -> Any:
    """Return a config without what stands for an object: pickles in hexadecimal, and Tune's placeholders."""
    if isinstance(value, dict) and value.keys() != {"_type", "value"}:
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list) and not (len(value) == 2 and value[0] in _PLACEHOLDERS):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, (dict, list)) else value
