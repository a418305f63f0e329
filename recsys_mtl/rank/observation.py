"""What answering some requests took and showed, for whoever watches a ranker."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, final

import numpy as np
from jaxtyping import Float

from recsys_mtl.rank.request import Id

__all__ = ["Observation", "RankStage"]

RankStage = Literal["read", "encode", "forward", "fuse"]
"""Requests into raw columns and stored rows; into encoded columns; the network with its
calibrators; scores, order and responses."""


@final
@dataclass
class Observation:
    """Filled by one call of ``Ranker.respond``; answers do not depend on it.

    Attributes:
        spans: Stage, start and end of ``time.perf_counter``, of all requests together;
            a stage may be there several times.
        prediction_BT: By request that was answered, by its place in the call: its
            candidates in the order given, tasks in the recipe's.
        ids: By place of a rank request, ids of its candidates, in the same order.
        degraded: Places of requests that were answered with defaults because a store of
            features was slow or down.
    """

    spans: list[tuple[RankStage, float, float]] = field(default_factory=list)
    prediction_BT: dict[int, Float[np.ndarray, "candidates tasks"]] = field(
        default_factory=dict
    )
    ids: dict[int, Sequence[Id]] = field(default_factory=dict)
    degraded: set[int] = field(default_factory=set)

    def stage(self, name: RankStage) -> "_Timed":
        """Time what the block does as part of ``name``."""
        return _Timed(self.spans, name)

    def seconds(self) -> dict[RankStage, float]:
        """Give the time of each stage."""
        total: dict[RankStage, float] = {}
        for name, start, end in self.spans:
            total[name] = total.get(name, 0.0) + end - start
        return total


class _Timed:
    """Notes when a block began and ended; a generator would take thrice the time."""

    __slots__ = ("_name", "_spans", "_start")

    def __init__(
        self, spans: list[tuple[RankStage, float, float]], name: RankStage
    ) -> None:
        self._spans, self._name = spans, name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._spans.append((self._name, self._start, time.perf_counter()))
