"""What a batch or a lookup was, for whoever counts."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, final

from recsys_mtl.entities import Kind
from recsys_mtl.rank.observation import Observation
from recsys_mtl.rank.request import (
    RankRequest,
    RankResponse,
    ScoreRequest,
    ScoreResponse,
)
from serving.model_set import ServedModel
from serving.observability.record import Record, current

__all__ = ["BatchNote", "LookupNote", "LookupOutcome", "Waiting"]

LookupOutcome = Literal["found", "too_slow", "failed", "left_alone"]
"""Of asking a store of users and items; all but the first end in defaults."""


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


@final
@dataclass(frozen=True, slots=True)
class LookupNote:
    """A request that wanted users or items of a store.

    Attributes:
        outcome: What became of it.
        seconds: How long it waited; ``None`` where the store was left alone.
        asked: Keys that were looked up, by kind, if the store answered.
        missed: Those of them that it did not have, or only damaged.
        damaged: Rows that could not be read.
        misfits: Columns of rows that did not fit the model.
    """

    outcome: LookupOutcome
    seconds: float | None = None
    asked: Mapping[Kind, int] = field(default_factory=dict)
    missed: Mapping[Kind, int] = field(default_factory=dict)
    damaged: int = 0
    misfits: int = 0
