"""Arrow columns as NumPy arrays, without work where there is nothing to do."""

import numpy as np
import pyarrow as pa

__all__ = ["absent", "contiguous", "filled", "flat", "present"]


def contiguous(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array, whatever the chunks; a dictionary stays one."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    if column.num_chunks == 0:
        return pa.array([], column.type)
    return pa.concat_arrays(column.unify_dictionaries().chunks)


def flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One contiguous array without dictionary, whatever the chunks."""
    column = contiguous(column)
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    return column


def filled(array: pa.Array, value: float | int | bool) -> np.ndarray:
    """Values, with ``value`` in place of nulls.

    Example:
        >>> filled(pa.array([1, None]), -1).tolist()
        [1, -1]
    """
    whole = array.fill_null(value) if array.null_count else array
    values: np.ndarray = whole.to_numpy(zero_copy_only=False)
    return values


def absent(array: pa.Array) -> np.ndarray:
    """Which values are null."""
    if array.null_count == 0:
        return np.zeros(len(array), bool)
    nulls: np.ndarray = array.is_null().to_numpy(zero_copy_only=False)
    return nulls


def present(array: pa.Array) -> np.ndarray:
    """Which values are not null."""
    return ~absent(array)
