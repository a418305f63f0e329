"""What a store knows, put into requests as if they had given it.

A cell of the request comes first, then one of the store; what neither has, the ranker
looks up in its bundle. A history that a request gives stands in for the stored one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.config.data import KeysSpec
from recsys_mtl.entities import Kind
from recsys_mtl.rank.request import (
    Id,
    ItemInput,
    RankRequest,
    RankTable,
    ScoreRequest,
    ScoreTable,
    UserInput,
)
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
        some = dict.fromkeys(str(i) for i in ids if isinstance(i, int | str))
        if some:
            found[kind] = list(some)
    return found


def merge(
    request: AskT, keys: KeysSpec, known: Known, windows: RowWindows, now_us: int
) -> AskT:
    """Fill the cells that a request leaves out.

    Args:
        request: In any form; it stays as it is.
        keys: Names of the key columns.
        known: What fits the model that is asked.
        windows: Of that model.
        now_us: Microseconds since 1970, for rows without a time.

    Raises:
        RequestError: Too much is stored for so many rows.
    """
    if isinstance(request, ScoreRequest):
        return cast(AskT, _merged_rows(request, keys, known, windows, now_us))
    return cast(AskT, _merged_ranking(request, keys, known))


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


def _merged_ranking(request: RankRequest, keys: KeysSpec, known: Known) -> RankRequest:
    user = known.get("users", {}).get(_text(request.user.id))
    if user:
        told = _merged_user(request.user, user)
        request = msgspec.structs.replace(request, user=told)
    items = known.get("items")
    if items and keys.item is not None:
        request = _merged_items(request, keys.item, items)
    return request


def _merged_user(user: UserInput, cells: Mapping[str, Any]) -> UserInput:
    features, histories = dict(user.features), dict(user.histories)
    stored: dict[str, dict[str, list[Any]]] = {}
    for name, cell in cells.items():
        history, dot, column = name.partition(".")
        if dot and isinstance(cell, list) and f"{history}.time" in cells:
            stored.setdefault(history, {})[column] = cell
        elif features.get(name) is None:
            features[name] = cell
    return UserInput(id=user.id, features=features, histories=stored | histories)


def _merged_items(
    request: RankRequest, key: str, items: Mapping[str, Mapping[str, Any]]
) -> RankRequest:
    if isinstance(request, RankTable):
        ids = _column(request.table, key)
        return msgspec.structs.replace(
            request, table=_filled(request.table, [items.get(str(i)) for i in ids])
        )
    given = request.items
    if given is None:
        given = [ItemInput(id=item_id) for item_id in request.item_ids or ()]
    merged = [_merged_item(item, items.get(_text(item.id))) for item in given]
    return msgspec.structs.replace(request, items=merged, item_ids=None)


def _merged_item(item: ItemInput, cells: Mapping[str, Any] | None) -> ItemInput:
    if not cells:
        return item
    return ItemInput(id=item.id, features=_over(item.features, cells))


def _merged_rows(
    request: ScoreRequest,
    keys: KeysSpec,
    known: Known,
    windows: RowWindows,
    now_us: int,
) -> ScoreRequest:
    names: tuple[tuple[Kind, str | None], ...] = (
        ("users", keys.user),
        ("items", keys.item),
    )
    cells_of = [
        [stored.get(_text(i)) for i in _of_rows(request, name)]
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
            table = _filled(request.table, cells)
            request = msgspec.structs.replace(request, table=table)
        elif request.rows is not None:
            rows = [
                _over(row, of) if of else row
                for row, of in zip(request.rows, cells, strict=True)
            ]
            request = msgspec.structs.replace(request, rows=rows)
        else:
            columns = _filled_columns(request.columns or {}, cells)
            request = msgspec.structs.replace(request, columns=columns)
    return request


def _over(given: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Cells of ``given``, and of ``stored`` where they are left out."""
    merged = dict(given)
    mine = {name.partition(".")[0] for name, cell in given.items() if cell is not None}
    for name, cell in stored.items():
        history, dot, _ = name.partition(".")
        # One history is either the request's or the store's, never half and half.
        if merged.get(name) is None and not (dot and history in mine):
            merged[name] = cell
    return merged


def _filled_columns(
    columns: Mapping[str, Sequence[Any]], stored: Sequence[Mapping[str, Any] | None]
) -> dict[str, list[Any]]:
    """The same for lists; uneven columns are left for the ranker to refuse."""
    num_rows = len(stored)
    if any(len(column) != num_rows for column in columns.values()):
        return {name: list(column) for name, column in columns.items()}
    rows = [
        _over({name: column[i] for name, column in columns.items()}, of or {})
        for i, of in enumerate(stored)
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _filled(table: pa.Table, stored: Sequence[Mapping[str, Any] | None]) -> pa.Table:
    """The same for a typed table, whose own columns keep their types."""
    if len(stored) != table.num_rows:
        return table
    mine = {name.partition(".")[0] for name in table.column_names if "." in name}
    for name in dict.fromkeys(name for of in stored for name in of or {}):
        history, dot, _ = name.partition(".")
        cells = [None if of is None else of.get(name) for of in stored]
        if name not in table.column_names:
            if not (dot and history in mine):
                table = table.append_column(name, pa.array(cells))
        elif not dot and table.column_names.count(name) == 1:
            place = table.column_names.index(name)
            own = table.column(place)
            if own.null_count and not pa.types.is_nested(own.type):
                table = table.set_column(place, name, _coalesced(own, cells))
    return table


def _coalesced(own: pa.ChunkedArray, cells: Sequence[Any]) -> pa.ChunkedArray:
    stored = pa.array(cells)
    try:
        # Not pa.array(cells, own.type), which would cut fractions off without a word.
        return pc.coalesce(own, stored.cast(own.type))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        # The store's cells do not fit the sender's narrower type: take the wider one.
        if pa.types.is_dictionary(own.type) or not _both_numbers(own.type, stored.type):
            return own
        wide = pa.float64() if pa.types.is_floating(stored.type) else pa.int64()
        return pc.coalesce(own.cast(wide), stored.cast(wide))


def _both_numbers(one: pa.DataType, other: pa.DataType) -> bool:
    return all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in (one, other))


def _text(key: Id) -> str:
    return str(key)
