"""Evaluates a recipe's conditions on raw columns."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.config.condition import Condition
from recsys_mtl.errors import DataError
from recsys_mtl.features.cast import cast_column
from recsys_mtl.features.column import filled, flat, present

__all__ = ["Answer", "holds"]


class Answer(NamedTuple):
    """Whether a condition holds, row by row.

    Attributes:
        holds_B: True where it does; never where it is unknown.
        known_B: False where the cell is missing or, compared as a number, unreadable.
    """

    holds_B: np.ndarray
    known_B: np.ndarray


def holds(condition: Condition, raw: pa.Table) -> Answer:
    """Ask ``condition`` of every row.

    A number in the recipe compares numbers, whatever the column's type: the text
    ``"1"`` of a CSV file equals 1. Text in the recipe compares text.

    Shape:
        - return: two arrays of shape ``(rows,)``

    Raises:
        DataError: There is no such column.

    Example:
        >>> raw = pa.table({"is_click": ["1", "0", None]})
        >>> holds(Condition(column="is_click", equals=1), raw).holds_B.tolist()
        [True, False, False]
    """
    if condition.column not in raw.column_names:
        raise DataError(
            f"a condition reads column {condition.column!r}, which the rows do not "
            f"have; there are {', '.join(raw.column_names)}"
        )
    column = flat(raw.column(condition.column))
    if condition.above is not None:
        result = pc.greater(cast_column(column, "float").array, condition.above)
    elif condition.at_least is not None:
        result = pc.greater_equal(
            cast_column(column, "float").array, condition.at_least
        )
    elif condition.equals is not None:
        result = _equal(column, condition.equals)
    else:
        assert condition.not_equals is not None
        result = pc.invert(_equal(column, condition.not_equals))
    return Answer(
        filled(result, False),
        present(result),
    )


def _equal(column: pa.Array, value: int | float | str) -> pa.Array:
    if isinstance(value, str):
        return pc.equal(cast_column(column, "string").array, value)
    if isinstance(value, int) and pa.types.is_integer(column.type):
        # Large ids differ in digits that a real number does not have.
        return pc.equal(cast_column(column, "int").array, pa.scalar(value, pa.int64()))
    return pc.equal(cast_column(column, "float").array, float(value))
