"""How often each caller may ask."""

import math
from collections import OrderedDict
from typing import Final, final

__all__ = ["RateLimit"]

_MOST_CALLERS: Final = 10_000


@final
class RateLimit:
    """A token bucket a caller: ``burst`` at once, ``per_s`` over time.

    Remembers the callers of late only; one that was forgotten has a full bucket again.

    Args:
        per_s: Tokens that a bucket gets a second.
        burst: Tokens that it holds.

    Example:
        >>> limit = RateLimit(per_s=2, burst=1)
        >>> limit.take("shop", now=0.0), limit.take("shop", now=0.25)
        (0.0, 0.25)
        >>> limit.take("shop", now=0.5)
        0.0
    """

    def __init__(self, per_s: float, burst: int | None = None) -> None:
        self._per_s = per_s
        self._burst = float(burst or max(1, math.ceil(per_s)))
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str, *, now: float) -> float:
        """Take a token.

        Args:
            caller: Whose.
            now: Seconds of a clock that never goes back.

        Returns:
            0 if there was one; else the seconds until there is.
        """
        tokens, since = self._buckets.get(caller, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._per_s)
        wait_s = 0.0
        if tokens >= 1.0:
            tokens -= 1.0
        else:
            wait_s = (1.0 - tokens) / self._per_s
        self._buckets[caller] = (tokens, now)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > _MOST_CALLERS:
            self._buckets.popitem(last=False)
        return wait_s
