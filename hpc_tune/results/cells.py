"""Cells: columns as the text of a CSV, as pandas writes the tables of this package.

A table of half a million rows is written without pandas in half the time, and piece by piece: what a trial reported
stays the same text for as long as the whole column stays of one kind.
"""

from __future__ import annotations

import csv
import io
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal, TypeAlias

import orjson

from hpc_tune.results.columns import Column, escaped

__all__ = ["Form", "Layout", "block", "csv_text", "form_of", "kinds_of", "shaped"]

Form: TypeAlias = Literal["float", "int", "any"]
"""What a column's values are written as: those of one column all the same way, as the dtype of pandas would have it."""

_LETTERS = {type(None): "n", float: "f", bool: "b", str: "s"}
_LARGEST = 2**63
_FINITE = 1.7e308


def kinds_of(column: Column) -> str:
    """Return a letter for each kind of value in a column: what `form_of` needs to know of it.

    ``n`` nothing, ``f`` float, ``i`` int, ``I`` one of more than 64 bits, ``H`` one that no float holds, ``b`` bool,
    ``s`` text, ``r`` text with a carriage return.
    """
    if isinstance(column, array):
        return "f" if column.typecode == "d" else "i"
    types = set(map(type, column))
    letters = {_LETTERS.get(kind, "") for kind in types}
    if int in types:
        letters |= {_size(value) for value in column if type(value) is int}
    if str in types:
        letters |= {"r" for value in column if type(value) is str and "\r" in value}
    return "".join(sorted(letters))


def _size(value: int) -> str:
    if -_LARGEST <= value < _LARGEST:
        return "i"
    return "I" if abs(value) < _FINITE else "H"


def form_of(kinds: Iterable[str]) -> Form:
    """Return the form of a column that is put together of parts; a part that is missing counts as ``n``."""
    present = set("".join(kinds)) - {"n"}
    if not present <= {"f", "i", "I"}:
        return "any"
    return "int" if present and "f" not in present else "float"


def shaped(values: Sequence[Any]) -> list[Any]:
    """Return the values of a whole column in its form, None for what is missing and for NaN."""
    column = list(values)
    kinds = kinds_of(column)
    if (
        (kinds == "f" and not math.isnan(sum(column)))
        or kinds == "i"
        or (kinds == "s" and all(map(str.isascii, column)))
    ):
        return column  # as nearly all are
    form = form_of([kinds])
    return [_shaped(value, form) for value in column]


def _shaped(value: Any, form: Form) -> Any:
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return None
    if form == "float":
        return float(value)
    return escaped(value) if type(value) is str else value


def csv_text(rows: Iterable[Iterable[Any]], *, quote_all: bool) -> str:
    """Return rows as CSV.

    csv leaves a bare carriage return as it is, and readers end the line there: then all text has to be quoted.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if quote_all else csv.QUOTE_MINIMAL)
    writer.writerows(rows)  # None is written as nothing
    return text.getvalue()


@dataclass(frozen=True)
class Layout:
    """How the history is written; where it stays the same, so does the text of each trial."""

    names: tuple[str, ...]
    """The columns as they are called in the table, after the trial's id."""
    sources: tuple[str, ...]
    """What each is called in the logs."""
    forms: tuple[Form, ...]
    quote_all: bool

    @property
    def header(self) -> str:
        """The first line."""
        return csv_text([["trial_id", *map(escaped, self.names)]], quote_all=self.quote_all)


def block(trial_id: str, columns: Sequence[Column | None], rows: int, layout: Layout) -> bytes:
    """Return a trial's part of the history; None stands for a column that it lacks."""
    if "any" in layout.forms or layout.quote_all:
        values = [
            repeat(None, rows) if column is None else [_shaped(value, form) for value in column]
            for column, form in zip(columns, layout.forms, strict=True)
        ]
        return csv_text(zip(repeat(escaped(trial_id), rows), *values, strict=True), quote_all=layout.quote_all).encode()
    head = csv_text([[escaped(trial_id), ""]], quote_all=False).removesuffix(",\n")
    texts = [_texts(column, form, rows) for column, form in zip(columns, layout.forms, strict=True)]
    return ("\n".join(map(",".join, zip(repeat(head, rows), *texts, strict=True))) + "\n").encode()


def _texts(column: Column | None, form: Form, rows: int) -> Iterable[str]:
    if column is None:
        return repeat("", rows)
    if form == "int":
        return ["" if value is None else str(value) for value in column]
    if isinstance(column, array) and column.typecode == "d" and (texts := _plain_texts(column)):
        return texts
    return ["" if value is None or value != value else repr(float(value)) for value in column]  # noqa: PLR0124


def _plain_texts(column: array[float]) -> list[str] | None:
    """Return floats as text by a fast way, where it writes them as Python does; None where it may not."""
    text = orjson.dumps(column.tolist())[1:-1].decode()
    # powers of ten, null for what is no number, and small numbers for which Python takes a power of ten
    differs = "e" in text or "n" in text or "0.0000" in text
    return None if differs else text.split(",")
