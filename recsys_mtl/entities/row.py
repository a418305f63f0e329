"""Rows that somebody wants to store -> keys and checked cells."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from msgspec import Struct

from recsys_mtl.entities.schema import EntitySchema
from recsys_mtl.entities.store import Cells, Kind
from recsys_mtl.errors import RequestError
from recsys_mtl.rank.column import unknown_name
from recsys_mtl.rank.request import Cell

__all__ = ["EntityInput", "EntityRow", "read_rows", "read_table"]

_KEY = "id"


class EntityInput(Struct, frozen=True, forbid_unknown_fields=True):
    """What to store of a user or item.

    Attributes:
        features: Raw columns; null is as left out.
        histories: Of users, by history: lists of equal length, one entry an event:
            ``time`` in the unit of the timestamp, and raw columns of the history.
    """

    features: dict[str, Cell] = {}
    histories: dict[str, dict[str, list[Cell]]] = {}


class EntityRow(EntityInput, frozen=True, kw_only=True):
    """The same with its key, as one line of many.

    Attributes:
        id: Of the user or item.
    """

    id: int | str


def read_rows(
    kind: Kind,
    rows: Sequence[EntityInput],
    keys: Sequence[int | str],
    schemas: Sequence[EntitySchema],
    place: str,
) -> list[tuple[str, Cells]]:
    """Check rows against all models.

    Args:
        kind: Users or items.
        rows: In JSON's types.
        keys: One a row.
        schemas: Every column must be one of these models', and fit all that read it.
        place: Of a row in what was sent, with ``{i}`` for its position.

    Raises:
        RequestError: A column is unknown or a cell does not fit.
    """
    columns: dict[str, list[Any]] = {}
    places: dict[str, str] = {}
    allowed = _names(kind, schemas)

    def path(name: str, i: int) -> str:
        return f"{place.replace('{i}', str(i))}{places[name]}"

    for i, row in enumerate(rows):
        cells = dict(row.features)
        for name in row.features:
            places.setdefault(name, f"features.{name}")
        for history, lists in row.histories.items():
            if lists and "time" not in lists:
                raise RequestError(
                    f"{place.replace('{i}', str(i))}histories.{history}.time",
                    "must tell when each event was",
                )
            for name, events in lists.items():
                cells[f"{history}.{name}"] = events
                places.setdefault(f"{history}.{name}", f"histories.{history}.{name}")
        for name, cell in cells.items():
            if name not in columns:
                if name not in allowed:  # told before it gets a cell in every row
                    raise unknown_name(path(name, i), name, allowed)
                columns[name] = [None] * len(rows)
            columns[name][i] = cell
    typed = _typed(kind, columns, schemas, path)
    return _rows([str(key) for key in keys], typed)


def read_table(
    kind: Kind, table: pa.Table, schemas: Sequence[EntitySchema]
) -> list[tuple[str, Cells]]:
    """Check a typed table: the column ``id``, and raw columns by name.

    Raises:
        RequestError: There is no ``id``, a key is missing, a column is unknown or a
            cell does not fit.
    """
    if table.column_names.count(_KEY) != 1:
        raise RequestError(
            _KEY, f"must be a column, once; got {', '.join(table.column_names)[:200]}"
        )
    ids = table.column(_KEY)
    whole = pa.types.is_integer(ids.type)
    if not (
        whole or pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)
    ):
        raise RequestError(_KEY, f"must be of whole numbers or text, got {ids.type}")
    keys = ids.to_pylist()
    if None in keys:
        raise RequestError(f"{_KEY}[{keys.index(None)}]", "must be there, got null")

    def path(name: str, i: int) -> str:
        return f"{name}[{i}]"

    columns = {n: table.column(n) for n in table.column_names if n != _KEY}
    allowed = _names(kind, schemas)
    for name in columns:
        if name not in allowed:
            raise unknown_name(path(name, 0), name, allowed)
    typed = _typed(kind, columns, schemas, path)
    return _rows([str(key) for key in keys], typed)


def _names(kind: Kind, schemas: Sequence[EntitySchema]) -> frozenset[str]:
    return frozenset(name for schema in schemas for name in schema.columns[kind])


def _typed(
    kind: Kind,
    columns: Mapping[str, Any],
    schemas: Sequence[EntitySchema],
    path: Callable[[str, int], str],
) -> dict[str, pa.Array]:
    typed: dict[str, pa.Array] = {}
    # The first model's types are stored; the others must take the cells too.
    for schema in reversed(schemas):
        typed |= schema.typed(kind, columns, path)
    return typed


def _rows(keys: list[str], typed: Mapping[str, pa.Array]) -> list[tuple[str, Cells]]:
    lists = {name: cells.to_pylist() for name, cells in typed.items()}
    return [
        (key, {n: cells[i] for n, cells in lists.items() if cells[i] is not None})
        for i, key in enumerate(keys)
    ]
