"""Rows of some users or items -> the histories and aggregates those rows may know."""

from typing import Literal, final

import numpy as np
import pyarrow as pa

from recsys_mtl.config.condition import Condition
from recsys_mtl.config.feature import AggregateFeature, HistoryFeature
from recsys_mtl.features.column import filled, flat
from recsys_mtl.features.condition import holds
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
from recsys_mtl.features.history import EventLog, Windows, as_of
from recsys_mtl.features.time import filled_time

__all__ = ["EventBlock", "counted", "gathered", "hits_before"]


@final
class EventBlock:
    """Joined, canonical rows of some users (or items): all the rows that each has.

    Gives histories and aggregates as they stood at every row, and what to keep of them
    for requests to come.

    Args:
        contract: Which histories and aggregates there are.
        raw: Rows of ``FeatureStore.join``, in the order of the log, with the columns
            that conditions read. No user (item) may have rows in another block.
        by: Whether the block has all rows of its users or of its items.
    """

    def __init__(
        self, contract: RawContract, raw: pa.Table, by: Literal["user", "item"]
    ) -> None:
        self.contract = contract
        self.raw = raw
        self.by = by
        coded = flat(raw.column(USER_KEY if by == "user" else ITEM_KEY))
        coded = coded.dictionary_encode()
        self.keys: pa.Array = coded.dictionary
        self._entity_B = filled(coded.indices, -1)
        self._time_B = filled_time(raw.column(TIME_KEY))
        self._logs: dict[Condition | None, EventLog] = {}

    def histories(self, start: int = 0, stop: int | None = None) -> dict[str, pa.Table]:
        """Windows of all histories for the rows from ``start`` to ``stop``.

        Returns:
            By history, a table with one row per raw row: a list column per raw column
            and ``time``, a list of microseconds, oldest first. Lists of raw values are
            dictionary-encoded, so that an event is stored and encoded once, however
            many rows see it.
        """
        assert self.by == "user"
        rows = slice(start, stop)
        tables = {}
        for history in self.contract.histories:
            log = self._log(history.where)
            windows = self._windows(log, rows, history.length)
            columns = self._event_columns(history)
            tables[history.name] = gathered(log, windows, columns)
        return tables

    def aggregates(self, start: int = 0, stop: int | None = None) -> pa.Table:
        """Earlier rows and hits for the rows from ``start`` to ``stop``.

        Returns:
            Columns ``<aggregate>.rows`` and ``<aggregate>.hits`` of the aggregates by
            this block's entity.
        """
        rows = slice(start, stop)
        columns: dict[str, pa.Array] = {}
        for aggregate in self._aggregates():
            log, hit_E = self._outcomes(aggregate)
            windows = self._windows(log, rows, aggregate.length)
            names = aggregate_columns(aggregate.name)
            found = map(pa.array, counted(windows, hits_before(hit_E)))
            columns |= dict(zip(names, found, strict=True))
        return pa.table(columns)

    def newest(self) -> pa.Table:
        """What requests by id need: one row per user (item) with its newest events.

        Returns:
            The key column, and lists ``<history>.<raw column>``, ``<history>.time``,
            ``<aggregate>.hit`` and ``<aggregate>.time``, oldest first; times in
            microseconds.
        """
        key = getattr(self.contract.keys, self.by)
        columns: dict[str, pa.Array] = {key: self.keys}
        histories = self.contract.histories if self.by == "user" else ()
        for history in histories:
            log = self._log(history.where)
            windows = log.newest(max(history.keep, history.length))
            rows = pa.array(log.rows[windows.events])
            for name, values in self._event_columns(history).items():
                columns[event_column(history.name, name)] = _lists(
                    windows, values.take(rows)
                )
            times = pa.array(log.time_us[windows.events])
            columns[event_column(history.name, TIME)] = _lists(windows, times)
        for aggregate in self._aggregates():
            log, hit_E = self._outcomes(aggregate)
            windows = log.newest(max(aggregate.keep, aggregate.length))
            for name, values in ((TIME, log.time_us), (HIT, hit_E)):
                columns[event_column(aggregate.name, name)] = _lists(
                    windows, pa.array(values[windows.events])
                )
        return pa.table(columns)

    def _aggregates(self) -> tuple[AggregateFeature, ...]:
        return tuple(a for a in self.contract.aggregates if a.by == self.by)

    def _event_columns(self, history: HistoryFeature) -> dict[str, pa.Array]:
        return {
            name: flat(self.raw.column(name))
            for name in self.contract.event_columns(history)
        }

    def _log(
        self, where: Condition | None, also_B: np.ndarray | None = None
    ) -> EventLog:
        if also_B is None and where in self._logs:
            return self._logs[where]
        event_B = np.ones(self.raw.num_rows, bool)
        if where is not None:
            event_B &= holds(where, self.raw).holds_B
        if also_B is not None:
            event_B &= also_B
        log = EventLog.from_rows(
            self._entity_B, self._time_B, event_B=event_B, num_users=len(self.keys)
        )
        if also_B is None:
            self._logs[where] = log
        return log

    def _outcomes(self, aggregate: AggregateFeature) -> tuple[EventLog, np.ndarray]:
        answer = holds(aggregate.rate_of, self.raw)
        log = self._log(aggregate.where, answer.known_B)
        return log, answer.holds_B[log.rows].astype(np.int8)

    def _windows(self, log: EventLog, rows: slice, length: int) -> Windows:
        return as_of(log, self._entity_B[rows], self._time_B[rows], length)


def hits_before(hit_E: np.ndarray) -> np.ndarray:
    """Hits before each event of a log, and at last all of them.

    Shape:
        - hit_E: ``(events,)``
        - return: ``(events + 1,)`` of ``int64``
    """
    return np.concatenate([[0], np.cumsum(hit_E, dtype=np.int64)])


def counted(windows: Windows, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Events and hits in each window, as real numbers.

    Args:
        windows: Which events each row sees.
        before: As ``hits_before`` gives it.
    """
    hits_B = before[windows.stop_B] - before[windows.start_B]
    return windows.lengths_B.astype(np.float64), hits_B.astype(np.float64)


def gathered(log: EventLog, windows: Windows, columns: dict[str, pa.Array]) -> pa.Table:
    """Lists of what each window's events have in ``columns``, and their times.

    Args:
        log: Events; ``rows`` are places in ``columns``.
        windows: Which events each row sees.
        columns: Raw values.
    """
    events = windows.events
    first, last = (int(events.min()), int(events.max()) + 1) if len(events) else (0, 0)
    places = pa.array((events - first).astype(np.int32))
    rows = pa.array(log.rows[first:last])
    lists = {
        name: _lists(windows, pa.DictionaryArray.from_arrays(places, values.take(rows)))
        for name, values in columns.items()
    }
    lists[TIME] = _lists(windows, pa.array(log.time_us[events]))
    return pa.table(lists)


def _lists(windows: Windows, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(windows.offsets), values)
