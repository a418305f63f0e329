"""What a store knows, put into requests as if they had given it.

A cell of the request comes first, then one of the store; what neither has, the ranker
looks up in its bundle. A history is taken whole: one that a row of the request brings
stands in for the stored one. Which columns are of histories, the signature tells.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec
import pyarrow as pa

from recsys_mtl.config.data import KeysSpec
from recsys_mtl.entities import EntitySchema, Kind
from recsys_mtl.rank.request import (
    ItemInput,
    RankRequest,
    RankTable,
    ScoreRequest,
    ScoreTable,
    UserInput,
)
from serving.entity_fill import filled_table
from serving.entity_rows import RowWindows, refuse_too_large

__all__ = ["Known", "merge", "wanted_keys"]

AskT = TypeVar("AskT", bound=RankRequest | ScoreRequest)

Known = Mapping[Kind, Mapping[str, Mapping[str, Any]]]
"""By kind and key, cells by column; of histories under ``<history>.<column>``."""


def wanted_keys(
    request: RankRequest | ScoreRequest, keys: KeysSpec, kinds: Sequence[Kind]
) -> dict[Kind, list[str]]:
    """Name the users and items of a request, each once."""
    found: dict[Kind, list[str]] = {}
    names: dict[Kind, str | None] = {"users": keys.user, "items": keys.item}
    for kind in kinds:
        name = names[kind]
        if name is None:
            continue
        if isinstance(request, ScoreRequest):
            ids = _of_rows(request, name)
        elif kind == "users":
            ids = [request.user.id]
        else:
            ids = _of_candidates(request, name)
        # What is no id is refused by the ranker, which can say where it stands.
        some = dict.fromkeys(key for key in _texts(ids) if key is not None)
        if some:
            found[kind] = list(some)
    return found


def merge(
    request: AskT,
    keys: KeysSpec,
    known: Known,
    schema: EntitySchema,
    windows: RowWindows,
    now_us: int,
) -> AskT:
    """Fill the cells that a request leaves out.

    Args:
        request: In any form; it stays as it is.
        keys: Names of the key columns.
        known: What fits the model that is asked.
        schema: Of that model.
        windows: Of that model.
        now_us: Microseconds since 1970, for rows without a time.

    Raises:
        RequestError: Too much is stored for so many rows.
    """
    if isinstance(request, ScoreRequest):
        rows = _merged_rows(request, keys, known, schema, windows, now_us)
        return cast(AskT, rows)
    return cast(AskT, _merged_ranking(request, keys, known, schema))


def _of_rows(request: ScoreRequest, name: str) -> Sequence[Any]:
    if isinstance(request, ScoreTable):
        return _column(request.table, name)
    if request.rows is not None:
        return [row.get(name) for row in request.rows]
    return (request.columns or {}).get(name, [])


def _of_candidates(request: RankRequest, name: str) -> Sequence[Any]:
    if isinstance(request, RankTable):
        return _column(request.table, name)
    if request.items is not None:
        return [item.id for item in request.items]
    return request.item_ids or []


def _column(table: pa.Table, name: str) -> list[Any]:
    if table.column_names.count(name) != 1:
        return []
    cells: list[Any] = table.column(name).to_pylist()
    return cells


def _merged_ranking(
    request: RankRequest, keys: KeysSpec, known: Known, schema: EntitySchema
) -> RankRequest:
    (user,) = _found(known.get("users", {}), [request.user.id])
    if user:
        told = _merged_user(request.user, user, schema)
        request = msgspec.structs.replace(request, user=told)
    items = known.get("items")
    if items and keys.item is not None:
        request = _merged_items(request, keys.item, items, schema)
    return request


def _merged_user(
    user: UserInput, cells: Mapping[str, Any], schema: EntitySchema
) -> UserInput:
    features = dict(user.features)
    stored: dict[str, dict[str, list[Any]]] = {}
    for name, cell in cells.items():
        history = schema.histories.get(name)
        if history is not None:
            stored.setdefault(history, {})[name.removeprefix(f"{history}.")] = cell
        elif features.get(name) is None:
            features[name] = cell
    return UserInput(id=user.id, features=features, histories=stored | user.histories)


def _merged_items(
    request: RankRequest,
    key: str,
    items: Mapping[str, Mapping[str, Any]],
    schema: EntitySchema,
) -> RankRequest:
    if isinstance(request, RankTable):
        stored = _found(items, _column(request.table, key))
        table = filled_table(request.table, stored, schema)
        return msgspec.structs.replace(request, table=table)
    given = request.items
    if given is None:
        given = [ItemInput(id=item_id) for item_id in request.item_ids or ()]
    stored = _found(items, [item.id for item in given])
    features = _filled_rows([item.features for item in given], stored, schema)
    merged = [
        item if of is item.features else ItemInput(id=item.id, features=of)
        for item, of in zip(given, features, strict=True)
    ]
    return msgspec.structs.replace(request, items=merged, item_ids=None)


def _merged_rows(
    request: ScoreRequest,
    keys: KeysSpec,
    known: Known,
    schema: EntitySchema,
    windows: RowWindows,
    now_us: int,
) -> ScoreRequest:
    names: tuple[tuple[Kind, str | None], ...] = (
        ("users", keys.user),
        ("items", keys.item),
    )
    cells_of = [
        _found(stored, _of_rows(request, name))
        for kind, name in names
        if name is not None and (stored := known.get(kind))
    ]
    if not cells_of:
        return request
    num_rows = len(cells_of[0])
    time_B = windows.times(request, num_rows, now_us)
    if {len(time_B), *map(len, cells_of)} != {num_rows}:
        return request  # uneven columns, which the ranker refuses
    found = [windows.cut(cells, time_B) for cells in cells_of]
    refuse_too_large(request, found, num_rows)
    for cells in found:
        if isinstance(request, ScoreTable):
            table = filled_table(request.table, cells, schema)
            request = msgspec.structs.replace(request, table=table)
        elif request.rows is not None:
            rows = _filled_rows(request.rows, cells, schema)
            request = msgspec.structs.replace(request, rows=rows)
        else:
            columns = _filled_columns(request.columns or {}, cells, schema)
            request = msgspec.structs.replace(request, columns=columns)
    return request


def _filled_rows(
    given: Sequence[dict[str, Any]],
    stored: Sequence[Mapping[str, Any] | None],
    schema: EntitySchema,
) -> list[dict[str, Any]]:
    """Cells of rows, and stored ones where they are left out or null."""
    rows = [
        _over(row, cells, schema) if cells else row
        for row, cells in zip(given, stored, strict=True)
    ]
    for name in schema.lists:
        if any(cells and name in cells for cells in stored):
            mine = [row.get(name) for row in given]
            cells_B = [row.get(name) for row in rows]
            lists = _as_lists(name, cells_B, mine, schema)
            if lists is not cells_B:
                rows = [
                    {**row, name: cell} for row, cell in zip(rows, lists, strict=True)
                ]
    return rows


def _as_lists(
    name: str, cells: list[Any], given: Sequence[Any], schema: EntitySchema
) -> list[Any]:
    """Make lists of a request's text where other rows got stored lists."""
    if {*map(type, given)} - {type(None)} != {str} or list not in map(type, cells):
        return cells
    return [schema.split(name, c) if isinstance(c, str) else c for c in cells]


def _over(
    given: Mapping[str, Any], stored: Mapping[str, Any], schema: EntitySchema
) -> dict[str, Any]:
    """Cells of ``given``, and of ``stored`` where they are left out or null."""
    merged = {**given, **stored}
    events = given.keys() & schema.histories.keys()
    for name in (given.keys() & stored.keys()) - events:
        if given[name] is not None:
            merged[name] = given[name]
    if not events:
        return merged
    # One history is either the request's or the store's, never half and half.
    mine = {
        schema.histories[name]
        for name in events
        if given[name] is not None and (given[name] != [] or name in schema.times)
    }
    told = {schema.histories.get(name) for name in stored} - mine
    for name, history in schema.histories.items():
        if history in mine:
            merged.pop(name, None)
            if name in given:
                merged[name] = given[name]
        elif history in told and name in given and name not in stored:
            merged[name] = None
    return merged


def _filled_columns(
    columns: Mapping[str, Sequence[Any]],
    stored: Sequence[Mapping[str, Any] | None],
    schema: EntitySchema,
) -> Mapping[str, Sequence[Any]]:
    """The same for lists; uneven columns are left for the ranker to refuse."""
    num_rows = len(stored)
    names = {name for cells in stored for name in cells or ()}
    if not names or any(len(column) != num_rows for column in columns.values()):
        return columns
    histories = {schema.histories.get(name) for name in names} - {None}
    given = {
        name: column
        for name, column in columns.items()
        if name in names or schema.histories.get(name) in histories
    }
    filled: dict[str, list[Any]] = {
        name: list(given[name]) if name in given else [None] * num_rows
        for name in (*given, *sorted(names - given.keys()))
    }
    for i, cells in enumerate(stored):
        if cells:
            row = {name: column[i] for name, column in given.items()}
            for name, cell in _over(row, cells, schema).items():
                filled[name][i] = cell
    for name in schema.lists:
        if name in given and name in names:
            filled[name] = _as_lists(name, filled[name], given[name], schema)
    return {**columns, **filled}


def _found(
    stored: Mapping[str, Mapping[str, Any]], ids: Sequence[Any]
) -> list[Mapping[str, Any] | None]:
    return [None if key is None else stored.get(key) for key in _texts(ids)]


def _texts(ids: Sequence[Any]) -> Sequence[str | None]:
    """Ids as keys of the store; ``None`` for what is no id."""
    if {*map(type, ids)} == {str}:
        return ids
    return [_text(i) for i in ids]


def _text(key: Any) -> str | None:
    if isinstance(key, str):
        return key
    # Whole numbers come as 3.0 from tables with gaps, and truth values are 1 and 0.
    if isinstance(key, bool) or (isinstance(key, float) and key.is_integer()):
        key = int(key)
    return str(key) if isinstance(key, int) else None
