"""Requests -> raw columns: every cell typed by the signature, or refused by path."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, assert_never, final

import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.config.data import KeysSpec, TimestampSpec
from recsys_mtl.errors import RequestError
from recsys_mtl.features.column import flat
from recsys_mtl.features.time import to_micros, whole_micros
from recsys_mtl.rank.card import InputColumn
from recsys_mtl.rank.column import unknown_name
from recsys_mtl.rank.newest import newest_events
from recsys_mtl.rank.parts import RankParts
from recsys_mtl.rank.request import (
    Id,
    ItemInput,
    RankRequest,
    RankTable,
    ScoreRequest,
    ScoreTable,
    UserInput,
)
from recsys_mtl.rank.signature import Signature, always, at

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
        lengths: By history, how many of its newest events features read: no others of
            a rank request are kept, for they would be repeated for each candidate. All
            are, of histories that are not named.
    """

    def __init__(
        self,
        columns: Sequence[InputColumn],
        keys: KeysSpec,
        timestamp: TimestampSpec | None,
        lengths: Mapping[str, int] | None = None,
    ) -> None:
        self._signature = Signature(columns, timestamp)
        self._keys = keys
        self._timestamp = timestamp
        self._lengths = lengths or {}

    def ranking(self, request: RankRequest, now_us: int) -> RankParts:
        """Read a rank request.

        Raises:
            RequestError: Something does not fit the signature.
        """
        own: dict[str, pa.Array]
        if isinstance(request, RankTable):
            ids, own = self._table_columns(request)
        else:
            ids, own = self._item_columns(request)
        shared: dict[str, pa.Array] = {}
        fields: dict[str, str] = {}
        for name, value in request.context.items():
            field = f"context.{name}"
            self._signature.expect(field, name, ("context",), ("feature", "timestamp"))
            if self._signature.columns[name].role == "timestamp":
                continue  # read with its unit below
            fields[name] = field
            shared[name] = self._signature.typed(name, [value], always(field))
        for name, value in request.user.features.items():
            field = f"user.features.{name}"
            self._signature.expect(field, name, ("user",), ("feature",))
            fields[name] = field
            shared[name] = self._signature.typed(name, [value], always(field))
        histories = self._history_columns(request.user)
        fields |= {name: f"user.histories.{name}" for name in histories}
        shared |= histories
        given_own = _with_values(own) - {self._keys.item}
        given = _with_values(shared) | given_own
        # Keys last: a key that is a feature too is given by its id.
        if self._keys.user is not None:
            name = self._keys.user
            shared[name] = self._signature.typed(
                name, [request.user.id], always("user.id")
            )
        if self._keys.item is not None and self._keys.item not in own:
            field = "items[{}].id" if request.item_ids is None else "item_ids[{}]"
            own[self._keys.item] = self._signature.typed(
                self._keys.item, ids, field.format
            )
        spec = self._timestamp
        if spec is None:
            times = (None, None, None)
            return RankParts(
                ids, shared, own, given, given_own, *times, fields, self._keys.item
            )
        value = request.context.get(spec.column)  # null is as if left out
        raw = raw_time(now_us, spec) if value is None else value
        cell, time_us = self._time(raw)
        shared[spec.column] = cell
        for history in request.user.histories:
            if history in self._lengths:
                names = [n for n in histories if n.startswith(f"{history}.")]
                shared |= newest_events(
                    {name: histories[name] for name in names},
                    history,
                    self._lengths[history],
                    time_us=time_us,
                    spec=spec,
                )
        return RankParts(
            ids,
            shared,
            own,
            given,
            given_own,
            time_us,
            cell[0].as_py(),
            value is not None,
            fields,
            self._keys.item,
        )

    def rows(self, request: ScoreRequest, now_us: int) -> RawRequest:
        """Lay out a score request.

        Raises:
            RequestError: Something does not fit the signature.
        """
        if isinstance(request, ScoreTable):
            return self._table_rows(request, now_us)
        if (request.rows is None) == (request.columns is None):
            raise RequestError("rows", "give either `rows` or `columns`")
        if request.rows is not None:
            rows = request.rows
            # Every name once, in the order in which rows bring them up.
            names = dict.fromkeys(name for row in rows for name in row)
            known = self._signature.columns
            for name in (name for name in names if name not in known):
                # Before a cell of every row is made for each of them.
                i = next(i for i, row in enumerate(rows) if name in row)
                raise unknown_name(f"rows[{i}].{name}", name, known)
            cells = {name: [row.get(name) for row in rows] for name in names}
            field, num_rows = "rows[{i}].{name}", len(rows)
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
            path = at(field, name)
            if name not in self._signature.columns:
                holder = path(next((i for i, c in enumerate(column) if c), 0))
                raise unknown_name(holder, name, self._signature.columns)
            columns[name] = self._signature.typed(name, column, path)
        columns = self._signature.even_histories(
            columns, lambda name, i: at(field, name)(i)
        )
        return self._timed(columns, num_rows, now_us)

    def _table_rows(self, request: ScoreTable, now_us: int) -> RawRequest:
        if request.rows is not None or request.columns is not None:
            raise RequestError("rows", "give rows in the table alone")
        columns: dict[str, pa.Array] = {}
        for name in request.table.column_names:
            field = f"{request.place}.{name}"
            if name not in self._signature.columns:
                raise unknown_name(field, name, self._signature.columns)
            columns[name] = self._signature.read(
                name,
                request.table.column(name),
                field,
                at(request.place + ".{name}[{i}]", name),
            )
        pattern = request.place + ".{name}[{i}]"
        columns = self._signature.even_histories(
            columns, lambda name, i: at(pattern, name)(i)
        )
        return self._timed(columns, request.table.num_rows, now_us)

    def _candidates(
        self, request: RankRequest
    ) -> tuple[list[Id], list[ItemInput] | None]:
        """Ids of the candidates, and the candidates if they may have features."""
        if (request.items is None) == (request.item_ids is None):
            raise RequestError("items", "give either `items` or `item_ids`")
        if request.items is not None:
            return [item.id for item in request.items], request.items
        return request.item_ids or [], None

    def _time(self, raw: Any) -> tuple[pa.Array, int]:
        """Type the time of a rank request; also as microseconds."""
        spec = self._timestamp
        assert spec is not None
        kind = self._signature.columns[spec.column].type
        if type(raw) is int and kind in ("int", "string"):
            micros = whole_micros(raw, spec.unit)
            if micros is not None:
                written = raw if kind == "int" else str(raw)
                return pa.array(
                    [written], pa.int64() if kind == "int" else pa.string()
                ), micros
        cell = self._signature.typed(
            spec.column, [raw], always(f"context.{spec.column}")
        )
        micros = to_micros(cell, spec)[0].as_py()
        assert micros is not None, "checked when it was typed"
        return cell, micros

    def _item_columns(
        self, request: RankRequest
    ) -> tuple[Sequence[Id], dict[str, pa.Array]]:
        ids, items = self._candidates(request)
        columns: dict[str, pa.Array] = {}
        if items is None:
            return ids, columns
        names = dict.fromkeys(name for item in items for name in item.features)
        for name in names:
            path = at("items[{i}].features.{name}", name)
            first = next(i for i, item in enumerate(items) if name in item.features)
            self._signature.expect(path(first), name, *_OF_A_CANDIDATE)
            left_out = request.context.get(name)
            cells = [item.features.get(name) for item in items]
            cells = [left_out if cell is None else cell for cell in cells]
            columns[name] = self._signature.typed(name, cells, path)
        return ids, columns

    def _table_columns(
        self, request: RankTable
    ) -> tuple[Sequence[Id], dict[str, pa.Array]]:
        """Read candidates that came as a table: the same, without cells."""
        if request.items is not None or request.item_ids is not None:
            raise RequestError("items", "give candidates in the table alone")
        table, ids = request.table, [None] * request.table.num_rows
        columns: dict[str, pa.Array] = {}
        for name in table.column_names:
            field = f"{request.place}.{name}"
            path = at(request.place + ".{name}[{i}]", name)
            if name != self._keys.item:
                self._signature.expect(field, name, *_OF_A_CANDIDATE)
            cells = self._signature.read(name, table.column(name), field, path)
            if name == self._keys.item:
                ids = cells.to_pylist()
            elif request.context.get(name) is not None and cells.null_count:
                left_out = self._signature.typed(
                    name, [request.context[name]], always(f"context.{name}")
                )
                cells = pc.coalesce(flat(cells), left_out[0])
            columns[name] = cells
        return ids, columns

    def _history_columns(self, user: UserInput) -> dict[str, pa.Array]:
        columns = {}
        for history, lists in user.histories.items():
            known = [
                name.removeprefix(f"{history}.")
                for name, column in self._signature.columns.items()
                if column.role == "history" and name.startswith(f"{history}.")
            ]
            if not known:
                names = {
                    name.split(".")[0]
                    for name, column in self._signature.columns.items()
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
                columns[f"{history}.{name}"] = self._signature.typed(
                    f"{history}.{name}", [events], always(field)
                )
        return self._signature.even_histories(
            columns, lambda name, _: f"user.histories.{name}"
        )

    def _timed(
        self, columns: dict[str, pa.Array], num_rows: int, now_us: int
    ) -> RawRequest:
        if not columns:  # a table of no columns cannot say how many rows it has
            columns = {"": pa.nulls(num_rows)}
        spec = self._timestamp
        if spec is None:
            return RawRequest(pa.table(columns), None, None)
        if spec.column in columns:
            return RawRequest(pa.table(columns), None, True)
        cell, _ = self._time(raw_time(now_us, spec))
        times = pa.repeat(cell[0], num_rows)
        now = cell[0].as_py()
        return RawRequest(pa.table(columns | {spec.column: times}), now, False)


_OF_A_CANDIDATE = (
    ("item", "context"),
    ("feature",),
)


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


def _with_values(columns: Mapping[str, pa.Array]) -> frozenset[str]:
    return frozenset(n for n, cells in columns.items() if cells.null_count < len(cells))
