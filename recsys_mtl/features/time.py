"""Timestamps of any unit -> microseconds since 1970."""

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.config.data import TimestampSpec
from recsys_mtl.features.cast import cast_column
from recsys_mtl.features.column import absent, filled, flat

__all__ = ["NEVER", "filled_time", "to_micros", "whole_micros"]

NEVER = int(np.iinfo(np.int64).min)
"""Stands for a missing time in arrays without nulls: nothing is earlier."""

# Years 1 to 9999: beyond, calendars end, and so does the patience of int64.
_EARLIEST, _LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
_MICROS = {"s": 1_000_000, "ms": 1_000, "us": 1}


def to_micros(array: pa.Array | pa.ChunkedArray, spec: TimestampSpec) -> pa.Array:
    """Read timestamps as whole microseconds since 1970 (UTC).

    Nanoseconds are rounded down, fractions of a unit to the nearest microsecond.

    Columns that are timestamps or dates already bring their own unit; ``spec.unit``
    is for numbers and text. Text of unit ``iso8601`` without an offset is UTC.

    Shape:
        - return: ``(values,)`` of ``int64``; null where missing, unreadable, or outside
          the years 1 to 9999

    Example:
        >>> spec = TimestampSpec(column="t", unit="s")
        >>> to_micros(pa.array(["1.5", "x", None]), spec).to_pylist()
        [1500000, None, None]
    """
    column = flat(array)
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        micros = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    elif spec.unit == "iso8601":
        micros = _iso(cast_column(column, "string").array)
    else:
        micros = _number(column, spec.unit)
    inside = pc.and_(
        pc.greater_equal(micros, _EARLIEST), pc.less_equal(micros, _LATEST)
    )
    return pc.if_else(inside, micros, pa.scalar(None, pa.int64()))


def whole_micros(
    time: int, unit: Literal["s", "ms", "us", "ns", "iso8601"]
) -> int | None:
    """Read one whole number as ``to_micros`` reads a column of them.

    Returns:
        ``None`` outside the years 1 to 9999, and where the unit is text.

    Example:
        >>> whole_micros(1_500, "ms")
        1500000
    """
    if unit == "iso8601":
        return None
    micros = time // 1_000 if unit == "ns" else time * _MICROS[unit]
    return micros if _EARLIEST <= micros <= _LATEST else None


def filled_time(micros: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Times as a plain array, ``NEVER`` where null."""
    return filled(flat(micros), NEVER)


def _number(column: pa.Array, unit: Literal["s", "ms", "us", "ns"]) -> pa.Array:
    whole = cast_column(column, "int")
    if whole.unreadable == 0:
        # Whole numbers keep every digit; out of range becomes null, never wraps.
        if unit == "ns":
            values = filled(whole.array, 0) // 1_000
        else:
            factor = _MICROS[unit]
            limit = _LATEST // factor + 1
            numbers = filled(whole.array, 0)
            values = np.clip(numbers, -limit, limit) * factor
        return pa.array(values, mask=absent(whole.array))
    real = cast_column(column, "float").array
    factor_real = 1e-3 if unit == "ns" else float(_MICROS[unit])
    micros = np.rint(filled(real, 0.0) * factor_real)
    far = np.clip(micros, -9e18, 9e18).astype(np.int64)
    return pa.array(far, mask=absent(real))


def _iso(text: pa.Array) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(text)
    day = r"^\d{4}-\d\d-\d\d"
    clock = r"[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?"
    offset = r"(Z|[+-]\d\d:?(\d\d)?)$"
    zoned = pc.match_substring_regex(trimmed, day + clock + offset).fill_null(False)
    plain = pc.match_substring_regex(trimmed, day + f"({clock})?$").fill_null(False)
    none = pa.scalar(None, pa.string())
    with_zone = _parsed(pc.if_else(zoned, trimmed, none), pa.timestamp("us", tz="UTC"))
    without = _parsed(pc.if_else(plain, trimmed, none), pa.timestamp("us"))
    return pc.coalesce(with_zone, without)


def _parsed(text: pa.Array, to: pa.TimestampType) -> pa.Array:
    # Arrow reads up to nine decimals, but only into a unit that holds them.
    short = pc.replace_substring_regex(text, r"(\.\d{1,6})\d*", r"\1")
    try:
        return short.cast(to).cast(pa.int64())
    except pa.ArrowInvalid:
        # Shaped like a date but none, as the 31st of February: one by one.
        return pa.array([_one(value, to) for value in short.to_pylist()], pa.int64())


def _one(text: str | None, to: pa.TimestampType) -> int | None:
    try:
        value = pa.scalar(text, pa.string()).cast(to).cast(pa.int64()).as_py()
    except pa.ArrowInvalid:
        return None
    return None if value is None else int(value)
