"""Given histories, cut to what features can read of them."""

from collections.abc import Iterable
from typing import final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_mtl.config.data import TimestampSpec
from recsys_mtl.config.feature import FeatureSpec, HistoryFeature
from recsys_mtl.features.column import flat
from recsys_mtl.features.contract import TIME, event_column
from recsys_mtl.features.time import NEVER, filled_time, to_micros

__all__ = ["EventTimes", "newest_events", "window_lengths"]


def window_lengths(features: Iterable[FeatureSpec]) -> dict[str, int]:
    """Say by history how many of its newest events are read."""
    return {f.name: f.length for f in features if isinstance(f, HistoryFeature)}


@final
class EventTimes:
    """When the events of one user were, in any order.

    Args:
        times: Raw times; an event without one is seen by nobody.
        spec: Their unit.
    """

    def __init__(self, times: pa.Array, spec: TimestampSpec) -> None:
        time_E = filled_time(to_micros(times, spec))
        order_E = np.argsort(time_E, kind="stable")
        self._order = order_E[np.count_nonzero(time_E == NEVER) :]
        self._time = time_E[self._order]

    def newest(self, time_us: int, length: int) -> npt.NDArray[np.int64]:
        """Where the newest events strictly earlier than ``time_us`` are, ascending.

        Args:
            time_us: Microseconds since 1970; ``NEVER`` sees nothing.
            length: At most so many; of equal times the later given win.
        """
        stop = int(self._time.searchsorted(time_us))
        return np.sort(self._order[max(0, stop - length) : stop])


def newest_events(
    columns: dict[str, pa.Array],
    history: str,
    length: int,
    *,
    time_us: int,
    spec: TimestampSpec,
) -> dict[str, pa.Array]:
    """Drop the events of one user that no row of that time can see.

    The windows of what is left are those of the whole, see ``as_of``: the newest events
    strictly earlier, of which the later given wins where times are the same.

    Args:
        columns: Lists ``<history>.time`` and ``<history>.<raw column>``, each of one
            row and all of them equally long.
        history: Name of the history.
        length: Longest window.
        time_us: When the rows are, in microseconds since 1970.
        spec: Unit of the events' times.

    Returns:
        The same columns, with the events in the order given.

    Example:
        >>> lists = {"clicks.time": pa.array([[30, 10, 20, 40]])}
        >>> spec = TimestampSpec(column="at", unit="us")
        >>> cut = newest_events(lists, "clicks", 2, time_us=40, spec=spec)
        >>> cut["clicks.time"].to_pylist()
        [[30, 20]]
    """
    times = flat(columns[event_column(history, TIME)]).flatten()
    if len(times) <= length:
        return columns
    kept = EventTimes(times, spec).newest(time_us, length)
    offsets, places = pa.array([0, len(kept)], pa.int32()), pa.array(kept)
    return {
        name: pa.ListArray.from_arrays(offsets, flat(cells).flatten().take(places))
        for name, cells in columns.items()
    }
