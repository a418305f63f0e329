"""Raw cells of any type -> one of the few types that encoders read.

Whatever cannot become the type is null and counted. Whole numbers never pass through a
real number, so ids keep every digit.
"""

from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.features.column import contiguous, filled, flat, present

__all__ = ["ARROW_TYPES", "Cast", "RawType", "cast_column", "coded_text"]

RawType = Literal["int", "string", "float", "string_list", "int_list", "float_list"]

ARROW_TYPES: dict[RawType, pa.DataType] = {
    "int": pa.int64(),
    "string": pa.string(),
    "float": pa.float64(),
    "int_list": pa.list_(pa.int64()),
    "string_list": pa.list_(pa.string()),
    "float_list": pa.list_(pa.float64()),
}

_TEXTS = (pa.string(), pa.large_string())
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_WHOLE = r"^[+-]?0*\d{1,19}(\.0*)?$"
_MOST, _LEAST = str(2**63 - 1), str(2**63)  # digits of the last numbers of 64 bits
_TWO_63 = 2.0**63


class Cast(NamedTuple):
    """A column in its declared type.

    Attributes:
        array: One contiguous array; missing and unreadable cells are null.
        unreadable: How many cells had a value that could not be read.
    """

    array: pa.Array
    unreadable: int


def cast_column(
    column: pa.Array | pa.ChunkedArray, to: RawType, separator: str | None = None
) -> Cast:
    """Read cells as the type ``to``.

    Empty text and NaN are missing. Infinities are unreadable. A real number is a whole
    number only if it has no fraction. Truth values are 1 and 0.

    Args:
        column: Cells of any scalar or list type.
        to: What they become.
        separator: Splits text into the elements of a list.

    Example:
        >>> cast_column(pa.array(["7", "x", None]), "int")[1]
        1
        >>> cast_column(pa.array([7.0, 7.5]), "string").array.to_pylist()
        ['7', '7.5']
    """
    array = flat(column)
    if array.type == ARROW_TYPES[to] and to in ("int", "int_list"):
        return Cast(array, 0)
    if pa.types.is_null(array.type):
        return Cast(pa.nulls(len(array), ARROW_TYPES[to]), 0)
    match to:
        case "int":
            return _to_int(array)
        case "float":
            return _to_float(array)
        case "string":
            return _to_string(array)
        case "int_list":
            return _to_list(array, "int", separator)
        case "string_list":
            return _to_list(array, "string", separator)
        case "float_list":
            return _to_list(array, "float", separator)


def coded_text(column: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray | None:
    """Keep a dictionary of texts where each is in its declared form already.

    Encoders look up each distinct text of it once, and no cell.

    Returns:
        Codes with a dictionary of ``string``, none of which is empty or null; ``None``
        for other columns, and for dictionaries longer than the column.
    """
    kind = column.type
    if not (pa.types.is_dictionary(kind) and kind.value_type in _TEXTS):
        return None
    coded = contiguous(column)
    texts = coded.dictionary
    if len(texts) > len(coded):
        return None
    if not filled(pc.binary_length(texts), 0).all():
        return None
    if texts.type == pa.string():
        return coded
    return pa.DictionaryArray.from_arrays(coded.indices, texts.cast(pa.string()))


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
    )


def _text(array: pa.Array) -> Cast:
    """Text as UTF-8, empty text as null."""
    lost = 0
    if array.type != pa.string():
        try:
            array = array.cast(pa.string())
        except pa.ArrowInvalid:  # bytes that are no UTF-8
            readable = [_decoded(value) for value in array.to_pylist()]
            lost = readable.count(None) - array.null_count
            array = pa.array(readable, pa.string())
    length_B = pc.binary_length(array)
    if not filled(length_B, 1).all():
        empty = pc.equal(length_B, 0)
        array = pc.if_else(empty, pa.scalar(None, pa.string()), array)
    return Cast(array, lost)


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _only(array: pa.Array, good: pa.Array) -> Cast:
    """Keep the cells where ``good`` is true; count the others that had a value."""
    kept = pc.if_else(good.fill_null(False), array, pa.scalar(None, array.type))
    return Cast(kept, kept.null_count - array.null_count)


def _to_int(array: pa.Array) -> Cast:
    kind = array.type
    if pa.types.is_uint64(kind):
        small = pc.less(array, pa.scalar(2**63, pa.uint64()))
        kept = _only(array, small)
        return Cast(kept.array.cast(pa.int64()), kept.unreadable)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return Cast(array.cast(pa.int64()), 0)
    if pa.types.is_floating(kind):
        reals = _without_nan(array)
        whole = pc.and_(
            pc.equal(pc.floor(reals), reals),
            pc.and_(pc.less(reals, _TWO_63), pc.greater_equal(reals, -_TWO_63)),
        )
        kept = _only(reals, whole)
        return Cast(kept.array.cast(pa.int64()), kept.unreadable)
    text = _to_string(array)
    whole = _whole(_blank_is_null(text.array))
    return Cast(whole.array, whole.unreadable + text.unreadable)


def _whole(text: pa.Array) -> Cast:
    """Text as whole numbers.

    Not by Arrow's own cast alone, which reads ``0x10`` too: what a cell becomes must
    not depend on how its neighbours are written.
    """
    kept = _only(text, pc.match_substring_regex(text, _WHOLE))
    signed = pc.replace_substring_regex(kept.array, r"^\+|\.0*$", "")
    digits = pc.replace_substring_regex(signed, r"^-?0*", "")
    limit = pc.if_else(pc.starts_with(signed, "-"), _LEAST, _MOST)
    # Of 19 digits, text compares as numbers do.
    fits = pc.or_(pc.less(pc.binary_length(digits), 19), pc.less_equal(digits, limit))
    inside = _only(signed, fits)
    return Cast(inside.array.cast(pa.int64()), kept.unreadable + inside.unreadable)


def _to_float(array: pa.Array) -> Cast:
    kind = array.type
    if pa.types.is_float64(kind) and np.isfinite(filled(array, 0.0)).all():
        return Cast(array, 0)
    if pa.types.is_floating(kind):
        return _finite(_without_nan(array), 0)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        if pa.types.is_boolean(kind):
            array = array.cast(pa.int8())
        return Cast(array.cast(pa.float64(), safe=False), 0)
    if pa.types.is_decimal(kind):
        return _finite(array.cast(pa.float64()), 0)
    text = _to_string(array)
    try:
        return _finite(_without_nan(text.array.cast(pa.float64())), text.unreadable)
    except pa.ArrowInvalid:
        trimmed = _blank_is_null(text.array)
        nan = pc.match_substring_regex(trimmed, r"^[+-]?[nN][aA][nN]$")
        trimmed = pc.if_else(nan, pa.scalar(None, pa.string()), trimmed)
        kept = _only(trimmed, pc.match_substring_regex(trimmed, _NUMBER))
        plain = pc.replace_substring_regex(kept.array, r"^\+", "")
        return _finite(plain.cast(pa.float64()), kept.unreadable + text.unreadable)


def _to_string(array: pa.Array) -> Cast:
    kind = array.type
    if _is_text(kind):
        return _text(array)
    if pa.types.is_floating(kind):
        reals = _finite(_without_nan(array), 0)
        whole = pc.and_(
            pc.equal(pc.floor(reals.array), reals.array),
            pc.less(pc.abs(reals.array), 2.0**53),
        ).fill_null(False)
        zero = pa.scalar(0.0)
        as_whole = pc.if_else(whole, reals.array, zero).cast(pa.int64())
        text = pc.if_else(
            whole, as_whole.cast(pa.string()), reals.array.cast(pa.string())
        )
        return Cast(text, reals.unreadable)
    if _is_list(kind) or pa.types.is_nested(kind):
        return Cast(pa.nulls(len(array), pa.string()), len(array) - array.null_count)
    return Cast(array.cast(pa.string()), 0)


def _to_list(
    array: pa.Array, to: Literal["int", "string", "float"], separator: str | None
) -> Cast:
    if _is_text(array.type) and separator is not None:
        array = pc.split_pattern(_text(array).array, separator)
    if not _is_list(array.type):
        # One value stands for a list of one.
        single = cast_column(array, to)
        valid = present(single.array)
        offsets = np.concatenate([[0], np.cumsum(valid)]).astype(np.int32)
        lists = pa.ListArray.from_arrays(
            pa.array(offsets), single.array.drop_null(), mask=pa.array(~valid)
        )
        return Cast(lists, single.unreadable)
    lengths = pc.list_value_length(array)
    elements = cast_column(array.flatten(), to)
    counts = filled(lengths, 0)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    missing = lengths.is_null() if lengths.null_count else None
    lists = pa.ListArray.from_arrays(pa.array(offsets), elements.array, mask=missing)
    return Cast(lists, elements.unreadable)


def _without_nan(array: pa.Array) -> pa.Array:
    reals = array if array.type == pa.float64() else array.cast(pa.float64())
    nan = pc.is_nan(reals)
    if pc.any(nan).as_py():
        return pc.if_else(nan, pa.scalar(None, pa.float64()), reals)
    return reals


def _finite(reals: pa.Array, unreadable: int) -> Cast:
    finite = pc.is_finite(reals)
    if pc.all(finite).as_py() in (True, None):
        return Cast(reals, unreadable)
    kept = _only(reals, finite)
    return Cast(kept.array, kept.unreadable + unreadable)


def _blank_is_null(text: pa.Array) -> pa.Array:
    return _text(pc.utf8_trim_whitespace(text)).array
