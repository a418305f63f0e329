"""Aggregates of stored users or items, all of one side at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float, Int

from recsys_mtl.config.feature import AggregateFeature
from recsys_mtl.features.encoders.aggregate import Aggregate, RatesOf
from recsys_mtl.features.history import EventLog, Windows, earlier
from recsys_mtl.features.snapshot import StoredEvents

__all__ = ["Cuts", "StoredRates"]

_FEW: Final = 8
"""Rows up to which single numbers are read faster than arrays of them."""


@final
class Cuts:
    """Windows of all rows into logs, each log searched once.

    Args:
        entity_B: Number of each row's user or item; -1 sees nothing.
        time_B: Microseconds since 1970, or ``NEVER``.

    Shape:
        - entity_B, time_B: ``(rows,)``
    """

    def __init__(
        self, entity_B: Int[np.ndarray, " rows"], time_B: Int[np.ndarray, " rows"]
    ) -> None:
        self.time_B = time_B
        self._entity_B = entity_B
        self._whole: dict[int, Windows] = {}

    def of(self, log: EventLog, length: int) -> Windows:
        """The newest ``length`` events of ``log`` that each row may know."""
        return self.whole(log).newest(length)

    def whole(self, log: EventLog) -> Windows:
        """All of them."""
        whole = self._whole.get(id(log))
        if whole is None:
            whole = self._whole[id(log)] = earlier(log, self._entity_B, self.time_B)
        return whole


@final
@dataclass(frozen=True)
class _Group:
    """Aggregates that see the same events.

    Attributes:
        log: Events.
        length: How many of the newest.
        places: Which aggregates these are.
        hits_before: Of each of them, hits before each event.
    """

    log: EventLog
    length: int
    places: list[int]
    hits_before: list[np.ndarray]

    def count(self, cuts: Cuts, count_AB: np.ndarray, hit_AB: np.ndarray) -> None:
        """Write events and hits of each row."""
        whole, length = cuts.whole(self.log), self.length
        if len(whole.start_B) > _FEW:
            windows = whole.newest(length)
            start_B, stop_B = windows.start_B, windows.stop_B
            count_AB[self.places] = stop_B - start_B
            for a, before in zip(self.places, self.hits_before, strict=True):
                np.subtract(before.take(stop_B), before.take(start_B), out=hit_AB[a])
            return
        rows = [
            (max(start, stop - length), stop)
            for start, stop in zip(
                whole.start_B.tolist(), whole.stop_B.tolist(), strict=True
            )
        ]
        count_AB[self.places] = [stop - start for start, stop in rows]
        hit_AB[self.places] = [
            [before.item(stop) - before.item(start) for start, stop in rows]
            for before in self.hits_before
        ]


@final
class StoredRates:
    """Evidence and rates of several aggregates, as of the time of each row.

    Args:
        aggregates: In any order; those without stored events have none.
        fitted: Of each of them.
        events: By name.
    """

    def __init__(
        self,
        aggregates: Sequence[AggregateFeature],
        fitted: Sequence[Aggregate],
        events: Mapping[str, StoredEvents],
    ) -> None:
        self._size = len(aggregates)
        self._rates = RatesOf(
            mean=np.array([[about.mean] for about in fitted]),
            prior_rows=np.array([[about.prior_rows] for about in fitted]),
        )
        groups: dict[tuple[int, int], _Group] = {}
        for place, aggregate in enumerate(aggregates):
            stored = events.get(aggregate.name)
            if stored is not None and stored.hits_before is not None:
                log, length = stored.log, aggregate.length
                group = groups.setdefault(
                    (id(log), length), _Group(log, length, [], [])
                )
                group.places.append(place)
                group.hits_before.append(stored.hits_before)
        self._groups = tuple(groups.values())

    def of(
        self, cuts: Cuts, rows: int
    ) -> tuple[
        Float[np.ndarray, "aggregates rows"], Float[np.ndarray, "aggregates rows"]
    ]:
        """Give evidence and rates of rows.

        Args:
            cuts: Of the rows.
            rows: How many there are.

        Shape:
            - return: ``(aggregates, rows)`` each, ``float32``
        """
        count_AB, hit_AB = np.zeros((2, self._size, rows))
        for group in self._groups:
            group.count(cuts, count_AB, hit_AB)
        return self._rates.evidence(count_AB), self._rates.log_odds(count_AB, hit_AB)
