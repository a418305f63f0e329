"""Scored rows -> responses."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from msgspec import UNSET

from recsys_mtl.rank.card import ModelCard
from recsys_mtl.rank.parts import RankParts
from recsys_mtl.rank.raw import RawRequest
from recsys_mtl.rank.request import (
    Explanation,
    RankedItem,
    RankRequest,
    RankResponse,
    ScoreRequest,
    ScoreResponse,
    UnknownIds,
    UnknownRows,
)
from recsys_mtl.rank.scored import Scored

__all__ = ["Chosen", "best_first", "rank_response", "score_response", "told"]

Chosen = list[tuple[str, int]]
"""Tasks to tell of, by name and by place among all tasks."""


def best_first(scored: Scored, top_k: int | None) -> npt.NDArray[np.int64]:
    """Order rows by score; equal scores stay in the order given."""
    order: npt.NDArray[np.int64] = np.argsort(-scored.score_B, kind="stable")
    return order[:top_k]


def told(
    number_BT: Float[np.ndarray, "batch tasks"], chosen: Chosen
) -> list[dict[str, float]]:
    """Give the numbers of each row by task."""
    names = [task for task, _ in chosen]
    # At once: a number taken out of an array by itself costs more than all else here.
    rows = number_BT[:, [t for _, t in chosen]].tolist()
    return [dict(zip(names, row, strict=True)) for row in rows]


def rank_response(
    card: ModelCard,
    request: RankRequest,
    parts: RankParts,
    scored: Scored,
    chosen: Chosen,
    order: npt.NDArray[np.int64],
    explanation: Explanation | None,
) -> RankResponse:
    """Tell candidates in an order."""
    places = order.tolist()
    score = scored.score_B[order].tolist()
    prediction = told(scored.prediction_BT[order], chosen)
    ids = parts.ids
    if request.details:
        details = _details_by_row(scored, chosen, order)
        items = [
            RankedItem(ids[i], s, p, d)
            for i, s, p, d in zip(places, score, prediction, details, strict=True)
        ]
    else:
        items = [
            RankedItem(ids[i], s, p)
            for i, s, p in zip(places, score, prediction, strict=True)
        ]
    return RankResponse(
        request_id=request.request_id,
        model=card.name,
        version=card.version,
        items=items,
        unknown=UnknownIds(
            user=not scored.known_user_B.all(),
            items=[ids[i] for i in np.flatnonzero(~scored.known_item_B).tolist()],
        ),
        timestamp=parts.timestamp,
        timestamp_from=_source(parts.timed_by_request),
        scoring=card.scoring,
        explain=UNSET if explanation is None else explanation,
    )


def score_response(
    card: ModelCard,
    request: ScoreRequest,
    raw: RawRequest,
    scored: Scored,
    chosen: Chosen,
) -> ScoreResponse:
    """Tell rows in the order given."""
    return ScoreResponse(
        request_id=request.request_id,
        model=card.name,
        version=card.version,
        predictions={task: scored.prediction_BT[:, t].tolist() for task, t in chosen},
        score=scored.score_B.tolist(),
        unknown=UnknownRows(
            users=np.flatnonzero(~scored.known_user_B).tolist(),
            items=np.flatnonzero(~scored.known_item_B).tolist(),
        ),
        timestamp=raw.timestamp,
        timestamp_from=_source(raw.timed_by_request),
        scoring=card.scoring,
        details={
            task: {n: detail_B.tolist() for n, detail_B in scored.details[task].items()}
            for task, _ in chosen
            if task in scored.details
        }
        if request.details
        else UNSET,
    )


def _details_by_row(
    scored: Scored, chosen: Chosen, order: npt.NDArray[np.int64]
) -> list[dict[str, dict[str, float]]]:
    told = {
        task: {n: detail_B[order].tolist() for n, detail_B in of.items()}
        for task, _ in chosen
        if (of := scored.details.get(task))
    }
    return [
        {task: {name: row[i] for name, row in of.items()} for task, of in told.items()}
        for i in range(len(order))
    ]


def _source(timed_by_request: bool | None) -> Literal["request", "server"] | None:
    if timed_by_request is None:
        return None
    return "request" if timed_by_request else "server"
