"""Given histories, cut to what features can read of them."""

import numpy as np
import pyarrow as pa

from recsys_mtl.config.data import TimestampSpec
from recsys_mtl.features.column import flat
from recsys_mtl.features.contract import TIME, event_column
from recsys_mtl.features.time import NEVER, filled_time, to_micros

__all__ = ["newest_events"]


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
    time_E = filled_time(to_micros(times, spec))
    earlier = np.flatnonzero((time_E < time_us) & (time_E != NEVER))
    order = np.argsort(time_E[earlier], kind="stable")
    # Not `[-length:]`, which is everything where `length` is 0.
    kept = np.sort(earlier[order[max(0, len(order) - length) :]])
    offsets, places = pa.array([0, len(kept)], pa.int32()), pa.array(kept)
    return {
        name: pa.ListArray.from_arrays(offsets, flat(cells).flatten().take(places))
        for name, cells in columns.items()
    }
