"""Typed tables, filled with what a store knows as whole columns.

The same rule as for the cells of JSON, see ``entity_merge``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.entities import EntitySchema
from recsys_mtl.errors import RequestError
from recsys_mtl.features.column import absent, flat, present
from recsys_mtl.rank.signature import always

__all__ = ["filled_table"]

_Cells = Mapping[str, Any]


def filled_table(
    table: pa.Table, stored: Sequence[_Cells | None], schema: EntitySchema
) -> pa.Table:
    """Fill the cells that a table leaves out or has as null.

    Columns that are filled get the types that the model reads; those that cannot be
    read so stay as they are, for the ranker to refuse by place.

    Args:
        table: Raw columns by name.
        stored: Of each row; the same object where rows have the same user or item.
        schema: Of the model that is asked.

    Raises:
        RequestError: Stored cells do not fit, though their row says that they do.
    """
    known = _Known(stored, schema)
    if len(stored) != table.num_rows or not known.names:
        return table
    by_history: dict[str, None] = {}
    for name in known.names:
        history = schema.histories.get(name)
        if history is not None:
            by_history[history] = None
        elif name not in table.column_names:
            table = table.append_column(name, known.repeated(name))
        elif table.column_names.count(name) == 1:
            table = _with_cells(table, name, known, schema)
    for history in by_history:
        table = _with_history(table, history, known, schema)
    return table


@final
class _Known:
    """Stored cells as columns, of each distinct row once.

    Args:
        stored: Of each row of the table.
        schema: What cells are typed by.

    Attributes:
        names: Columns of which any row has a cell.
        place_B: Which distinct row each row of the table has; -1 for none.
    """

    def __init__(self, stored: Sequence[_Cells | None], schema: EntitySchema) -> None:
        places: dict[int, int] = {}
        self._rows_U: list[_Cells] = []
        self.place_B = np.full(len(stored), -1)
        for i, cells in enumerate(stored):
            if not cells:
                continue
            place = places.setdefault(id(cells), len(places))
            if place == len(self._rows_U):
                self._rows_U.append(cells)
            self.place_B[i] = place
        self.names = dict.fromkeys(name for cells in self._rows_U for name in cells)
        self._schema = schema

    def typed(self, name: str) -> pa.Array:
        """The column of distinct rows."""
        cells = [cells.get(name) for cells in self._rows_U]
        return self._schema.signature.typed(name, cells, always(name))

    def repeated(self, name: str) -> pa.Array:
        """The column of all rows of the table."""
        places = pa.array(self.place_B, mask=self.place_B < 0)
        return self.typed(name).take(places)

    def over(
        self, own: pa.Array, stored_U: pa.Array, taken_B: npt.NDArray[np.bool_]
    ) -> pa.Array:
        """Cells of ``own``, and stored ones in the rows that take them."""
        if own.type != stored_U.type:
            own = own.cast(stored_U.type)
        places = np.where(taken_B, len(own) + self.place_B, np.arange(len(own)))
        return pa.concat_arrays([own, stored_U]).take(pa.array(places))

    def of_rows(self, some_U: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which rows of the table have one of some distinct rows."""
        rows_B: npt.NDArray[np.bool_] = np.append(some_U, False)[self.place_B]
        return rows_B


def _with_cells(
    table: pa.Table, name: str, known: _Known, schema: EntitySchema
) -> pa.Table:
    place = table.column_names.index(name)
    given = table.column(place)
    if not _may_have_gaps(given):
        return table
    own = _read(given, name, schema)
    if own is None:
        return table
    stored_U = known.typed(name)
    taken_B = absent(own) & known.of_rows(present(stored_U))
    if not taken_B.any():
        return table
    if pa.types.is_string(own.type) and schema.signature.columns[name].type != "string":
        own = schema.split_column(name, own)
    return table.set_column(place, name, known.over(own, stored_U, taken_B))


def _with_history(
    table: pa.Table, history: str, known: _Known, schema: EntitySchema
) -> pa.Table:
    """Give the rows that bring no such history of their own the stored one, whole."""
    names = [name for name, of in schema.histories.items() if of == history]
    given_B = np.zeros(table.num_rows, bool)
    columns: dict[str, pa.Array] = {}
    for name in names:
        if name not in table.column_names:
            continue
        own = None
        if table.column_names.count(name) == 1:
            own = _read(table.column(name), name, schema)
        if own is None or not pa.types.is_list(own.type):
            return table
        columns[name] = own
        if name in schema.times:
            given_B |= present(own)
        else:
            given_B |= (
                pc.greater(own.value_lengths(), 0)
                .fill_null(False)
                .to_numpy(zero_copy_only=False)
            )
    told = {n: known.typed(n) for n in names if n in known.names or n in columns}
    has_U = np.logical_or.reduce([present(stored_U) for stored_U in told.values()])
    taken_B = ~given_B & known.of_rows(has_U)
    if not taken_B.any():
        return table
    for name, stored_U in told.items():
        own = columns.get(name)
        if own is None:
            own = pa.nulls(table.num_rows, stored_U.type)
        filled = known.over(own, stored_U, taken_B)
        if name in columns:
            place = table.column_names.index(name)
            table = table.set_column(place, name, filled)
        else:
            table = table.append_column(name, filled)
    return table


def _read(given: pa.ChunkedArray, name: str, schema: EntitySchema) -> pa.Array | None:
    """A column as the ranker reads it; ``None`` if it refuses it."""
    try:
        return flat(schema.signature.read(name, given, name, always(name)))
    except RequestError:
        return None


def _may_have_gaps(column: pa.ChunkedArray) -> bool:
    if column.null_count or pa.types.is_null(column.type):
        return True
    # A code may stand for a null of the dictionary.
    return pa.types.is_dictionary(column.type) and any(
        chunk.dictionary.null_count for chunk in column.chunks
    )
