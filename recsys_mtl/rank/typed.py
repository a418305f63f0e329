"""Typed Arrow columns -> columns of the types that a bundle's signature asks for.

Nothing passes through Python cells; what cannot be kept exactly is refused by place.
"""

from collections.abc import Callable
from typing import assert_never

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.config.data import TimestampSpec
from recsys_mtl.errors import RequestError
from recsys_mtl.features.column import filled, flat
from recsys_mtl.rank.column import ARROW_TYPE, ELEMENT, ColumnType, Scalar, wanted

__all__ = ["typed_column", "typed_times"]

Path = Callable[[int], str]
_EXACT_FLOAT = 2**53
_UNIT_US = {"s": 1_000_000, "ms": 1_000, "us": 1}
_TEXT = {pa.string().id, pa.large_string().id, pa.string_view().id}
_LIST = {
    pa.list_(pa.null()).id,
    pa.large_list(pa.null()).id,
    pa.list_(pa.null(), 1).id,
}
_TIME = {pa.timestamp("s").id, pa.date32().id, pa.date64().id}
# Years 1 to 9999, the calendar of every other time here.
_EARLIEST_US, _LATEST_US = -62_135_596_800_000_000, 253_402_300_799_999_999


def typed_column(
    given: pa.Array | pa.ChunkedArray, kind: ColumnType, field: str, path: Path
) -> pa.Array:
    """Bring a column to its type.

    Args:
        given: Numbers of any width, text, dictionaries or lists of these, or nulls.
        kind: Type that the signature asks for.
        field: The column's place in the request, where all of it is wrong.
        path: From the position of a value to its place in the request.

    Raises:
        RequestError: The column is of another type, or a value is not finite, or no
            whole number of 64 bits.

    Example:
        >>> cells = pa.array([3, None], pa.int8())
        >>> typed_column(cells, "int", "age", lambda i: f"age[{i}]").type
        DataType(int64)
    """
    array = flat(given)
    match kind:
        case "int" | "string" | "float":
            return _scalars(array, kind, field, path)
        case "string_list" | "int_list" | "float_list":
            element = ELEMENT[kind]
            if kind == "string_list" and _is_text(array.type):
                # Text that the feature splits by its separator.
                return array.cast(pa.string())
            if pa.types.is_null(array.type):
                return pa.nulls(len(array), pa.list_(ARROW_TYPE[element]))
            if not _is_list(array.type):
                raise _wrong(
                    field, f"a list, of which each value is {wanted(element)}", array
                )
            return _lists(array, element, field, path)
        case _:
            assert_never(kind)


def typed_times(
    given: pa.Array | pa.ChunkedArray, spec: TimestampSpec, field: str, path: Path
) -> pa.Array | pa.ChunkedArray:
    """Write timestamps and dates as the raw column does; leave other columns alone.

    Args:
        given: A column of times, or of lists of times.
        spec: Unit of the raw column.
        field: The column's place in the request.
        path: From the position of a value to its place in the request.

    Raises:
        RequestError: A time is outside the years 1 to 9999.
    """
    kind = given.type
    if _is_list(kind) and _is_time(kind.value_type):
        array = flat(given)
        return _rebuilt(
            array, typed_times(array.flatten(), spec, field, _inside(array, path))
        )
    if not _is_time(kind):
        return given
    array = flat(given)
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("ms"))
    unit = array.type.unit
    number = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    if unit == "ns":
        micros = number // 1_000
        inside = np.ones(len(number), bool)
    else:
        factor = _UNIT_US[unit]
        # Bounds before the product: beyond them it would wrap.
        inside = (number >= _EARLIEST_US // factor) & (number <= _LATEST_US // factor)
        micros = np.where(inside, number, 0) * factor
    if spec.unit == "ns" and unit != "ns":
        inside &= np.abs(micros) <= np.iinfo(np.int64).max // 1_000
    for i in np.flatnonzero(~inside)[:1]:
        raise RequestError(
            path(int(i)), f"must be a time that the unit {spec.unit} can tell"
        )
    missing = array.is_null().to_numpy(zero_copy_only=False)
    match spec.unit:
        case "s" | "ms" | "us":
            return pa.array(micros // _UNIT_US[spec.unit], mask=missing)
        case "ns":
            exact = number if unit == "ns" else np.where(inside, micros, 0) * 1_000
            return pa.array(exact, mask=missing)
        case "iso8601":
            stamps = pa.array(micros, mask=missing).cast(pa.timestamp("us", "UTC"))
            return stamps.cast(pa.string())
        case _:
            assert_never(spec.unit)


def _scalars(array: pa.Array, kind: Scalar, field: str, path: Path) -> pa.Array:
    given = array.type
    if pa.types.is_null(given):
        return pa.nulls(len(array), ARROW_TYPE[kind])
    if given == ARROW_TYPE[kind] and kind != "float":
        return array
    if _is_text(given) and kind == "string":
        return array.cast(pa.string())
    if pa.types.is_boolean(given) and kind == "int":
        return array.cast(pa.int64())  # truth values are 1 and 0, as in tables
    if pa.types.is_integer(given):
        match kind:
            case "int":
                return _int64(array, path)
            case "float":
                return array.cast(pa.float64(), safe=False)  # the nearest, as in JSON
            case "string":
                return _int64(array, path).cast(pa.string())
    if pa.types.is_floating(given) and kind in ("int", "float"):
        real = array if pa.types.is_float64(given) else array.cast(pa.float64())
        numbers = filled(real, 0.0)
        for i in np.flatnonzero(~np.isfinite(numbers))[:1]:
            raise RequestError(
                path(int(i)),
                f"must be a finite number, got {numbers[i]}; send null where a value "
                "is missing",
            )
        if kind == "float":
            return real
        # Whole numbers come as 3.0 from tables with gaps; beyond 2^53 they would have
        # lost digits on the way.
        whole_B = (numbers == np.floor(numbers)) & (np.abs(numbers) <= _EXACT_FLOAT)
        for i in np.flatnonzero(~whole_B)[:1]:
            raise RequestError(
                path(int(i)), f"must be a whole number, got {numbers[i]}"
            )
        return real.cast(pa.int64())
    raise _wrong(field, wanted(kind), array)


def _int64(array: pa.Array, path: Path) -> pa.Array:
    if pa.types.is_uint64(array.type):
        numbers = array.fill_null(0).to_numpy(zero_copy_only=False)
        for i in np.flatnonzero(numbers > np.iinfo(np.int64).max)[:1]:
            raise RequestError(
                path(int(i)), f"must fit 64 bits, -2^63 to 2^63 - 1, got {numbers[i]}"
            )
    return array.cast(pa.int64())


def _lists(array: pa.Array, element: Scalar, field: str, path: Path) -> pa.Array:
    inside = _inside(array, path)
    values = _scalars(flat(array.flatten()), element, field, inside)
    return _rebuilt(array, values)


def _rebuilt(array: pa.Array, values: pa.Array) -> pa.Array:
    """Lists like those of ``array``, null where they are, of other values."""
    lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), values, mask=array.is_null() if array.null_count else None
    )


def _inside(array: pa.Array, path: Path) -> Path:
    def place(k: int) -> str:
        lengths = (
            pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
        )
        end = np.cumsum(lengths)
        i = int(np.searchsorted(end, k, side="right"))
        return f"{path(i)}[{k - int(end[i] - lengths[i])}]"

    return place


def _wrong(field: str, kind: str, array: pa.Array) -> RequestError:
    return RequestError(
        field, f"must be a column of which each value is {kind}, got {array.type}"
    )


def _is_text(kind: pa.DataType) -> bool:
    return kind.id in _TEXT


def _is_list(kind: pa.DataType) -> bool:
    return kind.id in _LIST


def _is_time(kind: pa.DataType) -> bool:
    return kind.id in _TIME
