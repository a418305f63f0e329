"""A bundle that answers: raw rows in, predictions and one score out."""

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float

from recsys_mtl.data.batch import to_batch
from recsys_mtl.export.bundle import Bundle
from recsys_mtl.rank.card import InputColumn, ModelCard
from recsys_mtl.rank.column import unknown_name
from recsys_mtl.rank.fusion import fuse
from recsys_mtl.rank.raw import RequestReader
from recsys_mtl.rank.request import (
    RankedItem,
    RankRequest,
    RankResponse,
    ScoreRequest,
    ScoreResponse,
    UnknownIds,
    UnknownRows,
)

__all__ = ["Ranker", "Scored"]


@final
@dataclass(frozen=True)
class Scored:
    """What a bundle says of raw rows, in their order.

    Attributes:
        prediction_BT: Expected labels, tasks in the order of the recipe.
        score_B: The fused score.
        known_user_B: Whether the bundle knows the row's user.
        known_item_B: Whether the bundle knows the row's item.
    """

    prediction_BT: Float[np.ndarray, "batch tasks"]
    score_B: Float[np.ndarray, " batch"]
    known_user_B: Bool[np.ndarray, " batch"]
    known_item_B: Bool[np.ndarray, " batch"]


@final
class Ranker:
    """Scores raw rows with the features and the network of one bundle.

    Pure: the same request gets the same answer, since the time comes from the request
    or from the caller.

    Args:
        bundle: As ``load_bundle`` gives it.
    """

    def __init__(self, bundle: Bundle) -> None:
        recipe = bundle.recipe
        self._bundle = bundle
        self._spec = recipe.fused_score
        self.tasks = tuple(task.name for task in recipe.tasks)
        self.card: ModelCard = card_of(bundle)
        self._reader = RequestReader(
            self.card.signature, recipe.data.keys, recipe.data.timestamp
        )

    @property
    def name(self) -> str:
        """To ask for it by."""
        return self.card.name

    @torch.inference_mode()
    def score(self, raw: pa.Table) -> Scored:
        """Score rows.

        Args:
            raw: Raw columns by name; what is left out is looked up by key, and is
                missing where the key is unknown. Columns no feature reads do no harm.

        Shape:
            - prediction_BT: ``(rows, tasks)``, float32
            - score_B: ``(rows,)``, float64
        """
        bundle = self._bundle
        assembled = bundle.store.assemble(raw)
        encoded = bundle.featurizer.encode(
            bundle.featurizer.canonical(assembled.raw), assembled.histories
        )
        batch = to_batch(encoded, bundle.featurizer.schema)
        prediction_BT = bundle.network.predict(bundle.network(batch)).numpy()
        return Scored(
            prediction_BT,
            fuse(self._spec, prediction_BT, self.tasks),
            assembled.known_user_B,
            assembled.known_item_B,
        )

    def rank(self, request: RankRequest, *, now_us: int) -> RankResponse:
        """Order candidates, best first; equal scores stay in the order given.

        Args:
            request: Who, when, and which candidates.
            now_us: Microseconds since 1970, taken where the request names no time.

        Raises:
            RequestError: The request does not fit the bundle's signature.
        """
        chosen = self._chosen(request.tasks)
        items = self._reader.candidates(request)
        raw = self._reader.ranking(request, now_us)
        scored = self.score(raw.table)
        order = np.argsort(-scored.score_B, kind="stable")[: request.top_k]
        ranked = [
            RankedItem(
                id=items[i].id,
                score=float(scored.score_B[i]),
                predictions={
                    task: float(scored.prediction_BT[i, t]) for task, t in chosen
                },
            )
            for i in order
        ]
        unknown = UnknownIds(
            user=not scored.known_user_B.all(),
            items=[items[i].id for i in np.flatnonzero(~scored.known_item_B)],
        )
        return RankResponse(
            request_id=request.request_id,
            model=self.card.name,
            version=self.card.version,
            items=ranked,
            unknown=unknown,
            timestamp=raw.timestamp,
            timestamp_from=_source(raw.timed_by_request),
        )

    def answer(self, request: ScoreRequest, *, now_us: int) -> ScoreResponse:
        """Score the rows of a request, in its order.

        Args:
            request: Rows or columns.
            now_us: Microseconds since 1970, taken where the request has no times.

        Raises:
            RequestError: The request does not fit the bundle's signature.
        """
        chosen = self._chosen(request.tasks)
        raw = self._reader.rows(request, now_us)
        scored = self.score(raw.table)
        return ScoreResponse(
            request_id=request.request_id,
            model=self.card.name,
            version=self.card.version,
            predictions={
                task: scored.prediction_BT[:, t].tolist() for task, t in chosen
            },
            score=scored.score_B.tolist(),
            unknown=UnknownRows(
                users=np.flatnonzero(~scored.known_user_B).tolist(),
                items=np.flatnonzero(~scored.known_item_B).tolist(),
            ),
            timestamp=raw.timestamp,
            timestamp_from=_source(raw.timed_by_request),
        )

    def _chosen(self, tasks: list[str] | None) -> list[tuple[str, int]]:
        if tasks is None:
            return [(task, t) for t, task in enumerate(self.tasks)]
        for i, task in enumerate(tasks):
            if task not in self.tasks:
                raise unknown_name(f"tasks[{i}]", task, self.tasks)
        return [(task, self.tasks.index(task)) for task in tasks]


def _source(timed_by_request: bool | None) -> Literal["request", "server"] | None:
    if timed_by_request is None:
        return None
    return "request" if timed_by_request else "server"
