"""Adds to impressions what is known of their users and items."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.config.feature import AggregateFeature, HistoryFeature
from recsys_mtl.errors import DataError
from recsys_mtl.features.cast import ARROW_TYPES
from recsys_mtl.features.column import absent, filled, flat, present
from recsys_mtl.features.contract import (
    HIT,
    ITEM_KEY,
    TIME,
    TIME_KEY,
    USER_KEY,
    RawContract,
    aggregate_columns,
    event_column,
)
from recsys_mtl.features.counts import FeatureCounts
from recsys_mtl.features.entity import EntityTable
from recsys_mtl.features.events import counted, gathered, hits_before
from recsys_mtl.features.history import EventLog, as_of
from recsys_mtl.features.time import filled_time, to_micros

__all__ = ["Assembled", "FeatureStore"]


@final
@dataclass(frozen=True)
class Assembled:
    """Rows with everything that the encoders read.

    Attributes:
        raw: Canonical rows, joined, with ``key.user``, ``key.item`` and ``key.time``.
        histories: By history, lists as ``Featurizer.encode`` takes them.
        known_user_B: Whether the user is in the table of users; without a table,
            whether the row has a user.
        known_item_B: Likewise for items.
    """

    raw: pa.Table
    histories: dict[str, pa.Table]
    known_user_B: np.ndarray
    known_item_B: np.ndarray


@final
@dataclass(frozen=True)
class FeatureStore:
    """Users and items by key, for the offline join and for requests alike.

    A cell that the row itself has wins over the stored one; a cell that is missing or
    null is filled from the store. A key that the store does not know gives nulls.

    Attributes:
        contract: What features read.
        users: Their columns, and their newest events; ``None`` if there are neither.
        items: Likewise.
    """

    contract: RawContract
    users: EntityTable | None = None
    items: EntityTable | None = None

    def assemble(self, raw: pa.Table, counts: FeatureCounts | None = None) -> Assembled:
        """Join users and items, and take histories and aggregates from the store.

        A history that the rows bring themselves, as lists ``<history>.time`` (in the
        unit of the timestamp, in any order) and ``<history>.<raw column>``, stands in
        for the stored one. Either way a row sees only what is strictly earlier.

        Args:
            raw: Rows of a request, or of a table to score.
            counts: Gains unreadable cells and missing keys.

        Raises:
            DataError: Lists of a given history differ in length, or lack their times.
        """
        joined, user_B, item_B = self._join(raw, counts, keep_codes=True)
        columns = {name: joined.column(name) for name in joined.column_names}
        time_B = filled_time(joined.column(TIME_KEY))
        rows_of = {"user": (self.users, user_B), "item": (self.items, item_B)}
        for aggregate in self.contract.aggregates:
            table, row_B = rows_of[aggregate.by]
            self._aggregate(aggregate, columns, table, row_B, time_B)
        histories = {
            history.name: self._history(history, joined, user_B, time_B)
            for history in self.contract.histories
        }
        return Assembled(
            pa.table(columns),
            histories,
            _known(self.users, user_B, joined.column(USER_KEY)),
            _known(self.items, item_B, joined.column(ITEM_KEY)),
        )

    def join(self, raw: pa.Table, counts: FeatureCounts | None = None) -> pa.Table:
        """Join users and items, without histories and aggregates.

        The offline pipeline builds those from the log itself, see ``EventBlock``.
        """
        return self._join(raw, counts)[0]

    def _join(
        self, raw: pa.Table, counts: FeatureCounts | None, *, keep_codes: bool = False
    ) -> tuple[pa.Table, np.ndarray, np.ndarray]:
        contract = self.contract
        given = set(raw.column_names)
        canonical = contract.canonical(raw, counts, keep_codes=keep_codes)
        columns = {name: canonical.column(name) for name in canonical.column_names}
        rows = []
        entities: tuple[tuple[EntityTable | None, str | None, str], ...] = (
            (self.users, contract.keys.user, USER_KEY),
            (self.items, contract.keys.item, ITEM_KEY),
        )
        for table, key, key_column in entities:
            keys = pa.nulls(raw.num_rows) if key is None else columns[key]
            columns[key_column] = keys
            if key is not None and counts is not None:
                counts.add(key_column, missing=keys.null_count)
            row_B = np.full(raw.num_rows, -1) if table is None else table.find(keys)
            rows.append(row_B)
            if table is not None:
                self._fill(columns, given, table, row_B)
        columns[TIME_KEY] = self._time(columns, raw.num_rows, counts)
        return pa.table(columns), rows[0], rows[1]

    def _fill(
        self,
        columns: dict[str, pa.ChunkedArray | pa.Array],
        given: set[str],
        table: EntityTable,
        row_B: np.ndarray,
    ) -> None:
        contract = self.contract
        names = [
            name
            for name in table.columns
            if name not in contract.stored_lists
            and (name not in given or columns[name].null_count)
        ]
        found = table.take(row_B, tuple(names))
        typed = {column.name for column in contract.signature}
        for name in names:
            cells = flat(found.column(name))
            if name in typed:
                cells = contract.cast(name, cells).array
            columns[name] = _filled(columns[name], cells) if name in given else cells

    def _time(
        self,
        columns: dict[str, pa.ChunkedArray | pa.Array],
        num_rows: int,
        counts: FeatureCounts | None,
    ) -> pa.Array:
        spec = self.contract.timestamp
        if spec is None:
            return pa.nulls(num_rows, pa.int64())
        cells = columns[spec.column]
        micros = to_micros(cells, spec)
        if counts is not None:
            lost = micros.null_count - cells.null_count
            counts.add(TIME_KEY, missing=micros.null_count, unreadable=lost)
        return micros

    def _aggregate(
        self,
        aggregate: AggregateFeature,
        columns: dict[str, pa.ChunkedArray | pa.Array],
        table: EntityTable | None,
        row_B: np.ndarray,
        time_B: np.ndarray,
    ) -> None:
        names = [event_column(aggregate.name, part) for part in (TIME, HIT)]
        if table is None or names[0] not in table.columns:
            return
        rows_U, code_B = np.unique(row_B, return_inverse=True)
        lists = table.take(rows_U, tuple(names))
        log = EventLog.from_lists(lists.column(names[0]))
        hit_E = flat(lists.column(names[1])).flatten().to_numpy()[log.rows]
        windows = as_of(log, code_B, time_B, aggregate.length)
        given = aggregate_columns(aggregate.name)
        found = counted(windows, hits_before(hit_E))
        for name, count_B in zip(given, found, strict=True):
            columns[name] = _filled(columns[name], pa.array(count_B))

    def _history(
        self,
        history: HistoryFeature,
        raw: pa.Table,
        user_B: np.ndarray,
        time_B: np.ndarray,
    ) -> pa.Table:
        names = (*self.contract.event_columns(history), TIME)
        given = _GivenHistory.of(self.contract, history, raw)
        rows_U, code_B = np.unique(user_B, return_inverse=True)
        stored = self._stored(history, names, rows_U)
        # Users of the store first (the unknown one has no events), then each row that
        # brings its own history.
        parts = [stored]
        if given is not None:
            code_B = np.where(
                given.given_B, len(rows_U) + np.arange(raw.num_rows), code_B
            )
            parts.append(given.lists)
        lists = {
            name: pa.concat_arrays([part[name] for part in parts]) for name in names
        }
        log = EventLog.from_lists(lists[TIME])
        windows = as_of(log, code_B, time_B, history.length)
        flat_columns = {n: v.flatten() for n, v in lists.items() if n != TIME}
        return gathered(log, windows, flat_columns)

    def _stored(
        self, history: HistoryFeature, names: Sequence[str], rows_U: np.ndarray
    ) -> dict[str, pa.Array]:
        stored = [event_column(history.name, name) for name in names]
        if self.users is not None and stored[-1] in self.users.columns:
            found = self.users.take(rows_U, tuple(stored))
            return {
                name: flat(found.column(column))
                for name, column in zip(names, stored, strict=True)
            }
        return {
            name: pa.nulls(len(rows_U), _list_type(self.contract, name))
            for name in names
        }


@final
@dataclass(frozen=True)
class _GivenHistory:
    """Histories that rows bring themselves.

    Attributes:
        lists: By raw column and ``time``, one list per row.
        given_B: Which rows bring one.
    """

    lists: dict[str, pa.Array]
    given_B: np.ndarray

    @classmethod
    def of(
        cls, contract: RawContract, history: HistoryFeature, raw: pa.Table
    ) -> "_GivenHistory | None":
        names = contract.event_columns(history)
        told = [
            name
            for name in (*names, TIME)
            if event_column(history.name, name) in raw.column_names
        ]
        if not told:
            return None
        time_column = event_column(history.name, TIME)
        if TIME not in told:
            raise DataError(
                f"history {history.name!r} is given as "
                f"{event_column(history.name, told[0])!r} without "
                f"{time_column!r}; give the time of every event"
            )
        assert contract.timestamp is not None
        cells = flat(raw.column(time_column))
        given_B = present(cells)
        length_B = filled(cells.value_lengths(), 0)
        offsets = pa.array(np.concatenate([[0], np.cumsum(length_B)]).astype(np.int32))
        micros = to_micros(cells.flatten(), contract.timestamp)
        lists = {TIME: pa.ListArray.from_arrays(offsets, micros)}
        for name in names:
            column = event_column(history.name, name)
            if name not in told:
                kind = _list_type(contract, name).value_type
                nulls = pa.nulls(int(length_B.sum()), kind)
                lists[name] = pa.ListArray.from_arrays(offsets, nulls)
                continue
            lists[name] = flat(raw.column(column))
            found_B = lists[name].value_lengths().fill_null(0)
            differs_B = found_B.to_numpy(zero_copy_only=False) != length_B
            if differs_B.any():
                row = int(np.argmax(differs_B))
                raise DataError(
                    f"{column!r} must have as many elements as {time_column!r}, got "
                    f"{found_B[row]} and {length_B[row]} in row {row}; give one value "
                    "per event, null where there is none"
                )
        return cls(lists, given_B)


def _list_type(contract: RawContract, column: str) -> pa.DataType:
    return pa.list_(
        pa.int64() if column == TIME else ARROW_TYPES[contract.type_of(column)]
    )


def _filled(
    given: pa.ChunkedArray | pa.Array, found: pa.ChunkedArray | pa.Array
) -> pa.Array:
    """Cells of ``given``, and of ``found`` where they are null."""
    own, other = flat(given), flat(found)
    if own.null_count == 0:
        return own
    if not pa.types.is_nested(own.type):
        return pc.coalesce(own, other)
    missing_B = absent(own)
    places = np.arange(len(own)) + np.where(missing_B, len(own), 0)
    return pa.concat_arrays([own, other]).take(pa.array(places))


def _known(
    table: EntityTable | None, row_B: np.ndarray, keys: pa.ChunkedArray
) -> np.ndarray:
    if table is not None:
        known: np.ndarray = row_B >= 0
        return known
    return present(flat(keys))
