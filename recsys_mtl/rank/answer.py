"""Scored rows -> responses."""

from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from jaxtyping import Float
from msgspec import UNSET

from recsys_mtl.rank.card import ModelCard
from recsys_mtl.rank.parts import RankParts
from recsys_mtl.rank.raw import RawRequest
from recsys_mtl.rank.request import (
    Explanation,
    RankedItem,
    RankedTable,
    RankRequest,
    RankResponse,
    RankTable,
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
    # Task by task into copies of one dictionary, which is several times faster than
    # making each of its row; and all numbers of a task at once, for one taken out of an
    # array by itself costs more than all else here.
    blank = dict.fromkeys((task for task, _ in chosen), 0.0)
    rows = [blank.copy() for _ in range(len(number_BT))]
    for task, t in chosen:
        for row, number in zip(rows, number_BT[:, t].tolist(), strict=True):
            row[task] = number
    return rows


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
    response = _without_candidates(card, request, parts, scored, explanation)
    if isinstance(request, RankTable) and request.as_table:
        table = _table(request, parts, scored, chosen, order)
        return RankedTable(**msgspec.structs.asdict(response), table=table)
    items = _items(request, parts, scored, chosen, order)
    return msgspec.structs.replace(response, items=items)


def _items(
    request: RankRequest,
    parts: RankParts,
    scored: Scored,
    chosen: Chosen,
    order: npt.NDArray[np.int64],
) -> list[RankedItem]:
    places = order.tolist()
    score = scored.score_B[order].tolist()
    prediction = told(scored.prediction_BT[order], chosen)
    ids = parts.ids
    if request.details:
        details = _details_by_row(scored, chosen, order)
        return [
            RankedItem(ids[i], s, p, d)
            for i, s, p, d in zip(places, score, prediction, details, strict=True)
        ]
    return [
        RankedItem(ids[i], s, p)
        for i, s, p in zip(places, score, prediction, strict=True)
    ]


def _table(
    request: RankRequest,
    parts: RankParts,
    scored: Scored,
    chosen: Chosen,
    order: npt.NDArray[np.int64],
) -> pa.Table:
    """Lay the same out as columns, without making an object of any candidate."""
    ids = pa.nulls(len(parts.ids), pa.int64())
    if parts.item_key is not None:
        ids = parts.own[parts.item_key]
    columns = {"id": ids.take(pa.array(order)), "score": scored.score_B[order]}
    columns_of = sorted(set(chosen), key=lambda pair: pair[1])  # as the recipe has them
    for task, t in columns_of:
        columns[f"prediction.{task}"] = scored.prediction_BT[order, t].astype(float)
    if request.details:
        for task, _ in columns_of:
            for name, detail_B in scored.details.get(task, {}).items():
                columns[f"detail.{task}.{name}"] = detail_B[order].astype(float)
    return pa.table(columns)


def _without_candidates(
    card: ModelCard,
    request: RankRequest,
    parts: RankParts,
    scored: Scored,
    explanation: Explanation | None,
) -> RankResponse:
    ids = parts.ids
    return RankResponse(
        request_id=request.request_id,
        model=card.name,
        version=card.version,
        items=[],
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
