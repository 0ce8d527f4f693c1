"""From pydantic's errors to faults as a user reads them: the dotted key, what was expected, the nearest right key."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from hpc_tune.errors import Fault
from hpc_tune.experiment.nearest import did_you_mean

__all__ = ["Faults", "describe", "faults_of", "known_keys", "read_toml"]


class Faults(ValueError):
    """Several faults at once, each with its key; pydantic carries it to where faults are listed."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = tuple(faults)


def faults_of(error: ValidationError, describe_one: Callable[[Mapping[str, Any]], Fault]) -> list[Fault]:
    """Return every fault that pydantic found; validators of ours have described theirs already."""
    faults: list[Fault] = []
    for detail in error.errors():
        cause = detail.get("ctx", {}).get("error")
        faults.extend(cause.faults if isinstance(cause, Faults) else [describe_one(detail)])
    return faults


def describe(
    detail: Mapping[str, Any], key: str, known: Sequence[str], *, examples: Mapping[str, str] | None = None
) -> Fault:
    """Turn one of pydantic's errors into a sentence of ours.

    Args:
        detail: one of ``ValidationError.errors()``.
        key: the dotted key that the user would look for.
        known: the keys that the table around it has.
        examples: what to write where a key is missing.
    """
    kind, given = detail["type"], detail.get("input")
    if kind == "extra_forbidden":
        return Fault(key, "unknown key", did_you_mean(key.rpartition(".")[2], known))
    if kind == "missing":
        return Fault(key, "is missing", (examples or {}).get(key))
    if kind == "string_pattern_mismatch":
        return Fault(key, f"expected letters, digits, '.', '_' or '-' (64 at most), got {given!r}")
    message = str(detail["msg"]).removeprefix("Value error, ").replace("Input should be", "expected", 1)
    return Fault(key, message if kind == "value_error" else f"{message}, got {given!r}")


def known_keys(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Return the keys of the table that holds the last part of ``path``, going through tables of tables."""
    current: Any = model
    for part in path[:-1]:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[part].annotation if part in current.model_fields else None
        else:  # dict[str, Model]: any name leads to the model
            current = get_args(current)[1] if len(get_args(current)) == 2 else None
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        FileNotFoundError: if there is none.
        Faults: if it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors begin a file with a mark
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise Faults([Fault("", f"cannot be read: {error}")]) from error
    except tomllib.TOMLDecodeError as error:
        raise Faults([Fault("", f"is not valid TOML: {error}")]) from error
