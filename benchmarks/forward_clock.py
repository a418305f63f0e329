"""Calls candidates in turn and takes their processor time. Imports no library."""

import time
from collections.abc import Callable

__all__ = ["interleaved"]


def interleaved(
    calls: dict[str, Callable[[], object]], *, rounds: int
) -> dict[str, list[float]]:
    """Call each candidate once a round; give milliseconds of processor time a call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 3):
        for name, call in calls.items():
            start = time.process_time()
            call()
            ms = (time.process_time() - start) * 1e3
            if number >= 3:
                times[name].append(ms)
    return times
