"""Which events a row may know: strictly earlier ones of its own user."""

from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa

from recsys_mtl.features.column import filled, flat
from recsys_mtl.features.schema import NUM_GAPS
from recsys_mtl.features.time import NEVER, filled_time

__all__ = ["EventLog", "Windows", "as_of", "earlier", "gap_ids"]


@final
@dataclass(frozen=True)
class EventLog:
    """Events of many users, sorted by user and then by time.

    Attributes:
        offsets: Where the events of each user begin, and at last where they end.
        time_us: Microseconds since 1970, ascending within a user.
        rows: Which raw row (or list element) each event came from.

    Shape:
        - offsets: ``(users + 1,)``
        - time_us, rows: ``(events,)``
    """

    offsets: np.ndarray
    time_us: np.ndarray
    rows: np.ndarray

    @classmethod
    def from_rows(
        cls,
        user_B: np.ndarray,
        time_B: np.ndarray,
        *,
        event_B: np.ndarray,
        num_users: int,
    ) -> "EventLog":
        """Sort rows into a log; rows of one user and time keep their order.

        Args:
            user_B: Number of the user, below ``num_users``; -1 for nobody.
            time_B: Microseconds since 1970, or ``NEVER``.
            event_B: Which rows are events.
            num_users: How many users there are.
        """
        rows = np.flatnonzero(event_B & (user_B >= 0) & (time_B != NEVER))
        user, time = user_B[rows], time_B[rows]
        # lexsort is stable.
        order = np.lexsort((time, user))
        counts = np.bincount(user, minlength=num_users)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(offsets, time[order], rows[order])

    @classmethod
    def from_lists(cls, times: pa.Array | pa.ChunkedArray) -> "EventLog":
        """Read a log from one list of microseconds per user, in any order.

        A null list is an empty one; events without a time are left out.
        """
        lists = flat(times)
        lengths = filled(lists.value_lengths(), 0)
        user = np.repeat(np.arange(len(lists)), lengths)
        time = filled_time(lists.flatten())
        event = np.ones(len(time), bool)
        return cls.from_rows(user, time, event_B=event, num_users=len(lists))

    def newest(self, keep: int) -> "Windows":
        """The newest ``keep`` events of every user, oldest first."""
        return Windows(self.offsets[:-1], self.offsets[1:]).newest(keep)


@final
@dataclass(frozen=True)
class Windows:
    """A range of neighbouring events for each row.

    Attributes:
        start_B: First event.
        stop_B: One past the last.
    """

    start_B: np.ndarray
    stop_B: np.ndarray

    def newest(self, length: int) -> "Windows":
        """The last ``length`` events of each row's."""
        return Windows(np.maximum(self.start_B, self.stop_B - length), self.stop_B)

    @property
    def lengths_B(self) -> np.ndarray:
        """Events of each row."""
        lengths: np.ndarray = self.stop_B - self.start_B
        return lengths

    @property
    def offsets(self) -> np.ndarray:
        """Where each row's events lie in ``events``, as Arrow lists want it."""
        ends = np.cumsum(self.lengths_B)
        return np.concatenate([[0], ends]).astype(np.int32)

    @property
    def events(self) -> np.ndarray:
        """Numbers of the events of all rows, one row after the other."""
        if len(self.start_B) == 1:
            return np.arange(self.start_B[0], self.stop_B[0])
        lengths = self.lengths_B
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        shift = np.repeat(self.start_B - (ends - lengths), lengths)
        events: np.ndarray = np.arange(total, dtype=np.int64) + shift
        return events

    def take(self, values_E: np.ndarray) -> np.ndarray:
        """What the events of all rows have, one row after the other."""
        if len(self.start_B) == 1:
            one: np.ndarray = values_E[self.start_B.item(0) : self.stop_B.item(0)]
            return one
        taken: np.ndarray = values_E[self.events]
        return taken


def as_of(
    log: EventLog, user_row_B: np.ndarray, time_B: np.ndarray, length: int
) -> Windows:
    """The newest ``length`` events strictly earlier than each row's own time.

    The one place that decides what a row may know. Rows of one instant do not see each
    other, whatever their order.

    Args:
        log: Events.
        user_row_B: Number of each row's user in the log; -1 sees nothing.
        time_B: Each row's time in microseconds since 1970; ``NEVER`` sees nothing.
        length: Longest window.

    Shape:
        - user_row_B, time_B: ``(rows,)``
        - return: windows of ``(rows,)``

    Example:
        >>> log = EventLog.from_lists(pa.array([[10, 20, 20, 30]]))
        >>> windows = as_of(log, np.array([0, 0]), np.array([20, 31]), length=2)
        >>> [log.time_us[a:b].tolist() for a, b in zip(windows.start_B, windows.stop_B)]
        [[10], [20, 30]]
    """
    return earlier(log, user_row_B, time_B).newest(length)


def earlier(log: EventLog, user_row_B: np.ndarray, time_B: np.ndarray) -> Windows:
    """All events strictly earlier than each row's own time; see ``as_of``.

    For whoever wants several lengths of one log, which is then searched once.
    """
    if len(log.offsets) < 2:
        zeros = np.zeros(len(user_row_B), np.int64)
        return Windows(zeros, zeros)
    if len(user_row_B) <= _FEW:
        first, low = np.zeros((2, len(user_row_B)), np.int64)
        rows = zip(user_row_B.tolist(), time_B.tolist(), strict=True)
        for i, (one, time) in enumerate(rows):
            if one >= 0:
                begin, end = log.offsets.item(one), log.offsets.item(one + 1)
                first[i] = begin
                low[i] = begin + log.time_us[begin:end].searchsorted(time)
        return Windows(first, low)
    nobody = user_row_B < 0
    user = np.where(nobody, 0, user_row_B)
    first = log.offsets[user]
    last = np.where(nobody, first, log.offsets[user + 1])
    return Windows(first, _earlier(log.time_us, first, last, time_B))


def _earlier(
    time_us: np.ndarray, first_B: np.ndarray, last_B: np.ndarray, time_B: np.ndarray
) -> np.ndarray:
    """Where the events of each segment stop to be earlier than its row's time."""
    low, high = first_B.copy(), last_B.copy()
    active = np.flatnonzero(low < high)
    # Requests come after most of the log: often no event is left out.
    whole = active[time_us[high[active] - 1] < time_B[active]]
    low[whole] = high[whole]
    active = np.flatnonzero(low < high)
    # Binary search in all segments at once: as many rounds as the longest needs.
    while len(active):
        middle = (low[active] + high[active]) // 2
        earlier = time_us[middle] < time_B[active]
        low[active] = np.where(earlier, middle + 1, low[active])
        high[active] = np.where(earlier, high[active], middle)
        active = active[low[active] < high[active]]
    return low


def gap_ids(age_us: np.ndarray) -> np.ndarray:
    """``2 + floor(log2(1 + seconds))`` of the time since each event.

    Shape:
        - age_us: ``(events,)``, not negative
        - return: ``(events,)`` of ``int32``, below ``NUM_GAPS``

    Example:
        >>> gap_ids(np.array([0, 999_999, 1_000_000, 3_000_000])).tolist()
        [2, 2, 3, 4]
    """
    seconds = age_us // 1_000_000
    # The exponent of x = m * 2**e with m in [1/2, 1) is exact where log2 rounds.
    exponent = np.frexp((1 + seconds).astype(np.float64))[1] - 1
    ids: np.ndarray = np.minimum(2 + exponent, NUM_GAPS - 1).astype(np.int32)
    return ids


_FEW = 8
"""Rows up to which a search for each costs less than one for all."""
