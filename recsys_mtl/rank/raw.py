"""Requests -> raw columns: every cell typed by the signature, or refused by path."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, assert_never, cast, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.config.data import KeysSpec, TimestampSpec
from recsys_mtl.errors import RequestError
from recsys_mtl.features.time import to_micros, whole_micros
from recsys_mtl.rank.card import InputColumn
from recsys_mtl.rank.column import ColumnType, unknown_name, whole_column
from recsys_mtl.rank.parts import RankParts
from recsys_mtl.rank.request import Id, ItemInput, RankRequest, ScoreRequest, UserInput

__all__ = ["RawRequest", "RequestReader", "raw_time"]


@final
@dataclass(frozen=True)
class RawRequest:
    """A score request as a raw table.

    Attributes:
        table: One row a given row.
        timestamp: The time taken where the request has none of its own; null where rows
            have their own or the model knows no time.
        timed_by_request: Whether the request said when; null if there is no time.
    """

    table: pa.Table
    timestamp: int | float | str | None
    timed_by_request: bool | None


@final
class RequestReader:
    """Checks requests against a signature and lays them out as raw tables.

    Args:
        columns: What a request may give.
        keys: Names of the key columns.
        timestamp: Column and unit of the time, if the model knows any.
    """

    def __init__(
        self,
        columns: Sequence[InputColumn],
        keys: KeysSpec,
        timestamp: TimestampSpec | None,
    ) -> None:
        self._columns = {column.name: column for column in columns}
        self._keys = keys
        self._timestamp = timestamp

    def ranking(self, request: RankRequest, now_us: int) -> RankParts:
        """Read a rank request.

        Raises:
            RequestError: Something does not fit the signature.
        """
        ids, items = self._candidates(request)
        shared: dict[str, pa.Array] = {}
        for name, value in request.context.items():
            field = f"context.{name}"
            self._expect(field, name, ("context",), ("feature", "timestamp"))
            if self._columns[name].role == "timestamp":
                continue  # read with its unit below
            shared[name] = self._typed(name, [value], _always(field))
        for name, value in request.user.features.items():
            field = f"user.features.{name}"
            self._expect(field, name, ("user",), ("feature",))
            shared[name] = self._typed(name, [value], _always(field))
        own = self._item_columns(items, request) if items is not None else {}
        shared |= self._history_columns(request.user)
        given_own = _with_values(own)
        given = _with_values(shared) | given_own
        # Keys last: a key that is a feature too is given by its id.
        if self._keys.user is not None:
            name = self._keys.user
            shared[name] = self._typed(name, [request.user.id], _always("user.id"))
        if self._keys.item is not None:
            field = "items[{}].id" if items is not None else "item_ids[{}]"
            own[self._keys.item] = self._typed(self._keys.item, ids, field.format)
        spec = self._timestamp
        if spec is None:
            return RankParts(ids, shared, own, given, given_own, None, None, None)
        value = request.context.get(spec.column)  # null is as if left out
        raw = raw_time(now_us, spec) if value is None else value
        cell, time_us = self._time(raw)
        shared[spec.column] = cell
        return RankParts(
            ids,
            shared,
            own,
            given,
            given_own,
            time_us,
            cell[0].as_py(),
            value is not None,
        )

    def rows(self, request: ScoreRequest, now_us: int) -> RawRequest:
        """Lay out a score request.

        Raises:
            RequestError: Something does not fit the signature.
        """
        if (request.rows is None) == (request.columns is None):
            raise RequestError("rows", "give either `rows` or `columns`")
        if request.rows is not None:
            # Every name once, in the order in which rows bring them up.
            names = dict.fromkeys(name for row in request.rows for name in row)
            cells = {name: [row.get(name) for row in request.rows] for name in names}
            field, num_rows = "rows[{i}].{name}", len(request.rows)
        else:
            cells = request.columns or {}
            lengths = {name: len(column) for name, column in cells.items()}
            field, num_rows = "columns.{name}[{i}]", max(lengths.values(), default=0)
            for name, length in lengths.items():
                if length != num_rows:
                    raise RequestError(
                        f"columns.{name}",
                        f"must have {num_rows} values like the longest column, got "
                        f"{length}",
                    )
        columns: dict[str, pa.Array] = {}
        for name, column in cells.items():
            path = _at(field, name)
            if name not in self._columns:
                holder = path(next((i for i, c in enumerate(column) if c), 0))
                raise unknown_name(holder, name, self._columns)
            columns[name] = self._typed(name, column, path)
        self._even_histories(columns, lambda name, i: _at(field, name)(i))
        return self._timed(columns, num_rows, now_us, field.replace("{i}", "0"))

    def candidates(self, request: RankRequest) -> list[ItemInput]:
        """Give the candidates, however they were written.

        Raises:
            RequestError: There are none, or both ways were used.
        """
        ids, items = self._candidates(request)
        return [ItemInput(id=item_id) for item_id in ids] if items is None else items

    def _candidates(
        self, request: RankRequest
    ) -> tuple[list[Id], list[ItemInput] | None]:
        """Ids of the candidates, and the candidates if they may have features."""
        if (request.items is None) == (request.item_ids is None):
            raise RequestError("items", "give either `items` or `item_ids`")
        if request.items is not None:
            return [item.id for item in request.items], request.items
        return request.item_ids or [], None

    def _expect(
        self, field: str, name: str, origins: tuple[str, ...], roles: tuple[str, ...]
    ) -> None:
        """Refuse a name that does not belong in this part of a rank request."""
        column = self._columns.get(name)
        if column is None:
            allowed = [
                c.name
                for c in self._columns.values()
                if c.origin in origins and c.role in roles
            ]
            raise unknown_name(field, name, allowed)
        if column.role not in roles or column.origin not in origins:
            raise RequestError(field, f"belongs elsewhere; {_PLACES[_place(column)]}")

    def _typed(
        self, name: str, cells: Sequence[Any], path: Callable[[int], str]
    ) -> pa.Array:
        column = self._columns[name]
        array = whole_column(cells, cast(ColumnType, column.type), path)
        if column.unit is not None:
            self._check_times(array, path)
        return array

    def _time(self, raw: Any) -> tuple[pa.Array, int]:
        """Type the time of a rank request; also as microseconds."""
        spec = self._timestamp
        assert spec is not None
        kind = self._columns[spec.column].type
        if type(raw) is int and kind in ("int", "string"):
            micros = whole_micros(raw, spec.unit)
            if micros is not None:
                written = raw if kind == "int" else str(raw)
                return pa.array(
                    [written], pa.int64() if kind == "int" else pa.string()
                ), micros
        cell = self._typed(spec.column, [raw], _always(f"context.{spec.column}"))
        micros = to_micros(cell, spec)[0].as_py()
        assert micros is not None, "checked when it was typed"
        return cell, micros

    def _item_columns(
        self, items: Sequence[ItemInput], request: RankRequest
    ) -> dict[str, pa.Array]:
        columns = {}
        names = dict.fromkeys(name for item in items for name in item.features)
        for name in names:
            path = _at("items[{i}].features.{name}", name)
            first = next(i for i, item in enumerate(items) if name in item.features)
            self._expect(path(first), name, ("item", "context"), ("feature",))
            left_out = request.context.get(name)
            cells = [item.features.get(name) for item in items]
            cells = [left_out if cell is None else cell for cell in cells]
            columns[name] = self._typed(name, cells, path)
        return columns

    def _history_columns(self, user: UserInput) -> dict[str, pa.Array]:
        columns = {}
        for history, lists in user.histories.items():
            known = [
                name.removeprefix(f"{history}.")
                for name, column in self._columns.items()
                if column.role == "history" and name.startswith(f"{history}.")
            ]
            if not known:
                names = {
                    name.split(".")[0]
                    for name, column in self._columns.items()
                    if column.role == "history"
                }
                raise unknown_name(f"user.histories.{history}", history, names)
            if "time" not in lists:
                raise RequestError(
                    f"user.histories.{history}.time", "must tell when each event was"
                )
            for name, events in lists.items():
                field = f"user.histories.{history}.{name}"
                if name not in known:
                    raise unknown_name(field, name, known)
                columns[f"{history}.{name}"] = self._typed(
                    f"{history}.{name}", [events], _always(field)
                )
        self._even_histories(columns, lambda name, _: f"user.histories.{name}")
        return columns

    def _even_histories(
        self, columns: Mapping[str, pa.Array], path: Callable[[str, int], str]
    ) -> None:
        """Refuse events of which some columns tell more than others."""
        for name, column in columns.items():
            if self._columns[name].role != "history":
                continue
            times = columns.get(f"{name.split('.')[0]}.time")
            if times is None:
                raise RequestError(
                    path(name, 0),
                    f"needs {name.split('.')[0]}.time, which tells when each event was",
                )
            for i, (mine, wanted) in enumerate(
                zip(_lengths(column), _lengths(times), strict=True)
            ):
                if mine != wanted:
                    raise RequestError(
                        path(name, i),
                        f"must have {wanted} events like its list of times, got {mine}",
                    )

    def _check_times(self, raw: pa.Array, path: Callable[[int], str]) -> None:
        """Refuse times that cannot be read, and events without one."""
        assert self._timestamp is not None
        nested = pa.types.is_list(raw.type)
        micros = to_micros(raw.flatten() if nested else raw, self._timestamp)
        if nested:
            owner = pc.list_parent_indices(raw).to_pylist()
            first = raw.offsets.to_pylist()
            bad = micros.is_null().to_numpy(zero_copy_only=False)
            for k in np.flatnonzero(bad)[:1]:
                i = owner[k]
                raise self._no_time(f"{path(i)}[{k - first[i]}]", raw[i][k - first[i]])
            return
        bad = pc.and_(raw.is_valid(), micros.is_null()).to_numpy(zero_copy_only=False)
        for i in np.flatnonzero(bad)[:1]:
            raise self._no_time(path(int(i)), raw[int(i)])

    def _no_time(self, field: str, cell: pa.Scalar) -> RequestError:
        assert self._timestamp is not None
        unit = self._timestamp.unit
        wanted = "a time in ISO 8601" if unit == "iso8601" else f"a time in {unit}"
        return RequestError(
            field,
            f"must be {wanted}, in the years 1 to 9999, got {str(cell.as_py())[:60]!r}",
        )

    def _timed(
        self, columns: dict[str, pa.Array], num_rows: int, now_us: int, field: str
    ) -> RawRequest:
        if not columns:  # a table of no columns cannot say how many rows it has
            columns = {"": pa.nulls(num_rows)}
        spec = self._timestamp
        if spec is None:
            return RawRequest(pa.table(columns), None, None)
        if spec.column in columns:
            return RawRequest(pa.table(columns), None, True)
        now = raw_time(now_us, spec)
        times = self._typed(spec.column, [now] * num_rows, lambda _: field)
        return RawRequest(pa.table(columns | {spec.column: times}), now, False)


def raw_time(micros: int, spec: TimestampSpec) -> int | str:
    """Write a time as the raw column does.

    Args:
        micros: Microseconds since 1970, UTC.
        spec: Unit of the raw column.

    Example:
        >>> raw_time(1_500_000, TimestampSpec(column="at", unit="ms"))
        1500
    """
    match spec.unit:
        case "s":
            return micros // 1_000_000
        case "ms":
            return micros // 1_000
        case "us":
            return micros
        case "ns":
            return micros * 1_000
        case "iso8601":
            return datetime.fromtimestamp(micros / 1e6, tz=UTC).isoformat()
        case _:
            assert_never(spec.unit)


def _always(field: str) -> Callable[[int], str]:
    return lambda _: field


def _at(field: str, name: str) -> Callable[[int], str]:
    # Not str.format on the name: a name may hold braces.
    before, _, after = field.replace("{name}", name.replace("{i}", "")).partition("{i}")
    return lambda i: f"{before}{i}{after}"


def _with_values(columns: Mapping[str, pa.Array]) -> frozenset[str]:
    return frozenset(n for n, cells in columns.items() if cells.null_count < len(cells))


def _lengths(lists: pa.Array) -> list[int]:
    return [len(events) if events is not None else 0 for events in lists.to_pylist()]


def _place(column: InputColumn) -> str:
    return column.role if column.role in ("key", "history") else column.origin


_PLACES = {
    "user": "it is a column of the user: put it into user.features",
    "item": "it is a column of the item: put it into items[].features",
    "context": "it is a column of the impression: put it into context",
    "key": "it is a key: give it as `id`",
    "history": "it is part of a history: put it into user.histories",
}
