"""What a batch was, for whoever counts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from recsys_mtl.rank.observation import Observation
from recsys_mtl.rank.request import (
    RankRequest,
    RankResponse,
    ScoreRequest,
    ScoreResponse,
)
from serving.model_set import ServedModel
from serving.observability.record import Record, current

__all__ = ["BatchNote", "Waiting"]


@final
@dataclass(frozen=True, slots=True)
class Waiting:
    """A request from the moment at which it waits for the model.

    Attributes:
        record: Of the request; ``None`` where nobody records it.
        since: When it began to wait, of ``time.perf_counter``.
    """

    record: Record | None = field(default_factory=current)
    since: float = field(default_factory=time.perf_counter)


@final
@dataclass(slots=True)
class BatchNote:
    """A batch that was scored.

    Attributes:
        model: By which model.
        asks: Its requests.
        waiting: Of each request, how it waited.
        began: When the model began, of ``time.perf_counter``.
        observations: What the ranker told, with the place of the first request that it
            is about; several where requests of a batch were scored again one by one.
        outcomes: Of each request, as the ranker gave it; empty until then.
    """

    model: ServedModel
    asks: Sequence[RankRequest | ScoreRequest]
    waiting: Sequence[Waiting]
    began: float
    observations: list[tuple[int, Observation]] = field(default_factory=list)
    outcomes: Sequence[RankResponse | ScoreResponse | BaseException] = ()
