"""Parts of a timestamp as ids."""

from typing import Literal

import numpy as np

from recsys_mtl.features.schema import MISSING
from recsys_mtl.features.time import NEVER

__all__ = ["TIME_PARTS", "TimePart", "time_part_ids"]

TimePart = Literal["hour", "weekday", "day_of_month", "month"]

TIME_PARTS: dict[TimePart, int] = {
    "hour": 24,
    "weekday": 7,
    "day_of_month": 31,
    "month": 12,
}
"""How many values each part has; a table has two more rows."""

_HOUR = 3_600_000_000
_DAY = 24 * _HOUR


def time_part_ids(
    time_B: np.ndarray, part: TimePart, utc_offset_hours: float
) -> np.ndarray:
    """Ids of a part of local time, 2 being the first: midnight, Monday, the first.

    Args:
        time_B: Microseconds since 1970; ``NEVER`` is missing.
        part: Which part.
        utc_offset_hours: How far local time is ahead of UTC.

    Shape:
        - time_B, return: ``(rows,)``; ids are ``int32``

    Example:
        >>> time_part_ids(np.array([0]), "weekday", 0.0).tolist()  # a Thursday
        [5]
    """
    known_B = time_B != NEVER
    local_B = np.where(known_B, time_B, 0) + round(utc_offset_hours * _HOUR)
    match part:
        case "hour":
            value_B = local_B // _HOUR % 24
        case "weekday":
            value_B = (local_B // _DAY + 3) % 7
        case "day_of_month":
            day_B = (local_B // _DAY).astype("datetime64[D]")
            value_B = (day_B - day_B.astype("datetime64[M]")).astype(np.int64)
        case "month":
            month_B = (local_B // _DAY).astype("datetime64[D]").astype("datetime64[M]")
            value_B = month_B.astype(np.int64) % 12
    ids: np.ndarray = np.where(known_B, value_B + 2, MISSING).astype(np.int32)
    return ids
