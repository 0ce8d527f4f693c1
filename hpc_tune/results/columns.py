"""Columns: the values of many JSON objects, one key at a time.

Rows are turned into columns as soon as one file has been read, since numbers in an array take a tenth of the
memory of dictionaries, and no later step has to look at single cells.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, TypeAlias

__all__ = ["Column", "columns_of", "compact", "escaped", "merge", "typed"]

Row: TypeAlias = Mapping[str, Any]
Column: TypeAlias = "array[Any] | list[Any]"
"""An array of type ``d`` (only floats) or ``q`` (only ints); else a list, with None for what is missing."""


def columns_of(rows: Sequence[Row], keep: Callable[[str], bool] | None = None) -> dict[str, Column]:
    """Return the columns of JSON objects in order of first appearance, nested objects flattened with ``/``.

    Lists become JSON text, since a cell holds one value. ``keep`` chooses among the outermost keys.
    """
    columns: dict[str, Column] = {}
    for key, values in _transposed(rows, keep):
        columns.update(_flattened(key, values))
    return columns


def _transposed(rows: Sequence[Row], keep: Callable[[str], bool] | None) -> Iterator[tuple[str, list[Any]]]:
    """Yield each key and its values; rows of one file nearly always share their keys, which saves looking for each."""
    if len(rows) > 1 and set(map(len, rows)) == {len(rows[0])} and len(rows[0]) > 1:
        with suppress(KeyError):
            columns = dict(zip(rows[0], zip(*map(itemgetter(*rows[0]), rows), strict=True), strict=True))
            yield from ((key, list(columns[key])) for key in filter(keep, columns))
            return
    found = dict.fromkeys(chain.from_iterable(rows))
    yield from ((key, [row.get(key) for row in rows]) for key in filter(keep, found))


def _flattened(name: str, values: list[Any]) -> Iterator[tuple[str, Column]]:
    types = set(map(type, values))
    if dict in types:
        nested: list[Row] = [value if type(value) is dict else {} for value in values]
        inner = columns_of(nested)
        yield from ((f"{name}/{key}", column) for key, column in inner.items())
        values = [None if type(value) is dict else value for value in values]
        if inner and not any(value is not None for value in values):
            return
    yield name, compact(values, types)


def compact(values: list[Any], types: set[type]) -> Column:
    """Return values of these types as a column."""
    if types == {float}:
        return array("d", values)
    if types == {int}:
        try:
            return array("q", values)
        except OverflowError:
            return values
    if list in types:
        return [json.dumps(value, ensure_ascii=False) if type(value) is list else value for value in values]
    return values


def merge(columns: Sequence[Column | None], lengths: Sequence[int]) -> Any:
    """Join the columns of many files to one array for a DataFrame.

    Args:
        columns: one per file; None where the file lacks the key.
        lengths: the number of rows of each file, none of them 0.
    """
    import numpy

    parts = list(zip(columns, lengths, strict=True))
    kinds = {column.typecode if isinstance(column, array) else "" for column in columns if column is not None}
    if "d" in kinds <= {"d", "q"} or (kinds == {"q"} and None not in columns):
        nan = numpy.nan
        return numpy.concatenate([numpy.full(n, nan) if c is None else numpy.asarray(c) for c, n in parts])
    return typed([value for c, n in parts for value in (repeat(None, n) if c is None else c)])


def typed(values: list[Any]) -> Any:
    """Return the narrowest array that keeps each value as it was written.

    Whole numbers stay whole when some are missing (``Int64``); a column of nothing is one of missing numbers.
    """
    import numpy
    import pandas

    types = set(map(type, values))
    present = types - {type(None)}
    try:
        if present == {int} != types:
            return pandas.array(values, dtype="Int64")
        if present <= {int, float}:
            return numpy.array(values, dtype="int64" if present == {int} else "float64")
    except OverflowError:  # JSON knows no largest number
        pass
    if types == {bool}:
        return numpy.array(values, dtype=bool)
    return numpy.array([escaped(value) if type(value) is str else value for value in values], dtype=object)


def escaped(text: str) -> str:
    """Return text that has a UTF-8: JSON and file names may hold lone surrogates, which pandas refuses."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
