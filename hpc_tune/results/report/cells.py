"""The cells of a table's column, as numbers or as words."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import Series

__all__ = ["MISSING", "is_number", "numbers", "short", "words"]

MISSING = "not set"


def numbers(column: Series[Any]) -> Series[float]:
    """Return a column as floats, NaN where a cell holds none."""
    import pandas

    return pandas.to_numeric(column, errors="coerce").astype(float)


def is_number(column: Series[Any]) -> bool:
    """Tell whether a column holds numbers, apart from what is missing."""
    present = column[column.notna()].tolist()
    return bool(present) and all(isinstance(each, Real) and not isinstance(each, bool) for each in present)


def words(column: Series[Any]) -> list[str]:
    """Return a column as people read it; what is missing has a word, too."""
    return [
        MISSING if missing else short(each)
        for each, missing in zip(column.tolist(), column.isna().tolist(), strict=True)
    ]


def short(value: Any) -> str:
    """Return a value as people read it; floats with six digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
