"""A bundle that answers: raw rows in, predictions and one score out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, final

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float
from msgspec import UNSET

from recsys_mtl.config.feature import HistoryFeature
from recsys_mtl.config.score import ScoreSpec
from recsys_mtl.data.batch import to_batch
from recsys_mtl.errors import DataError, RequestError
from recsys_mtl.export.bundle import Bundle
from recsys_mtl.features.entity import EntityTable
from recsys_mtl.rank.card import InputColumn, ModelCard, Scoring, TaskCard
from recsys_mtl.rank.column import unknown_name
from recsys_mtl.rank.fusion import fuse, scoring
from recsys_mtl.rank.raw import RequestReader
from recsys_mtl.rank.request import (
    Cell,
    Id,
    RankedItem,
    RankRequest,
    RankResponse,
    ScoreRequest,
    ScoreResponse,
    UnknownIds,
    UnknownRows,
    UserInput,
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
        details: By task that has any, then by name, what there is beside the
            prediction; empty unless it was asked for.
    """

    prediction_BT: Float[np.ndarray, "batch tasks"]
    score_B: Float[np.ndarray, " batch"]
    known_user_B: Bool[np.ndarray, " batch"]
    known_item_B: Bool[np.ndarray, " batch"]
    details: dict[str, dict[str, Float[np.ndarray, " batch"]]] = field(
        default_factory=dict
    )


@final
class Ranker:
    """Scores raw rows with the features and the network of one bundle.

    Pure: the same request gets the same answer, since the time comes from the request
    or from the caller.

    Args:
        bundle: As ``load_bundle`` gives it.
        score: Stands in for the score that the recipe declares.

    Raises:
        ConfigError: ``score`` names what is no task.
    """

    def __init__(self, bundle: Bundle, *, score: ScoreSpec | None = None) -> None:
        recipe = bundle.recipe
        self._bundle = bundle
        self._spec = recipe.fused_score if score is None else score
        self.tasks = tuple(task.name for task in recipe.tasks)
        self._detail_names = dict(
            zip(self.tasks, bundle.network.detail_names, strict=True)
        )
        self._scoring = scoring(bundle.calibration, self._spec, self.tasks)
        self.card: ModelCard = _card(bundle, self._scoring)
        self._reader = RequestReader(
            self.card.signature, recipe.data.keys, recipe.data.timestamp
        )

    @property
    def name(self) -> str:
        """To ask for it by."""
        return self.card.name

    @torch.inference_mode()
    def score(self, raw: pa.Table, *, details: bool = False) -> Scored:
        """Score rows.

        Args:
            raw: Raw columns by name; what is left out is looked up by key, and is
                missing where the key is unknown. Columns no feature reads do no harm.
            details: Whether to tell what tasks have beside their predictions.

        Shape:
            - prediction_BT: ``(rows, tasks)``, float32
            - score_B: ``(rows,)``, float64
        """
        bundle = self._bundle
        assembled = bundle.store.assemble(raw)
        encoded = bundle.featurizer.encode(assembled.raw, assembled.histories)
        prediction_BT = np.empty((0, len(self.tasks)), dtype=np.float32)
        told = {
            task: dict.fromkeys(names, prediction_BT[:, 0])
            for task, names in self._detail_names.items()
            if names
        }
        if encoded.num_rows:  # TorchRec takes no empty batches
            batch = to_batch(encoded, bundle.schema)
            logits = bundle.network(batch).logits
            prediction_BT = bundle.calibration.apply(
                bundle.network.predict(logits).numpy(), self.tasks
            )
            if details:
                made = zip(self.tasks, bundle.network.details(logits), strict=True)
                told = {
                    task: {name: detail_B.numpy() for name, detail_B in of.items()}
                    for task, of in made
                    if of
                }
        keys, store = bundle.recipe.data.keys, bundle.store
        rows = assembled.raw
        return Scored(
            prediction_BT,
            fuse(self._spec, prediction_BT, self.tasks),
            self._known(store.users, keys.user, rows, assembled.known_user_B),
            self._known(store.items, keys.item, rows, assembled.known_item_B),
            told if details else {},
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
        scored = self.score(raw.table, details=request.details)
        told = {
            task: scored.details[task] for task, _ in chosen if task in scored.details
        }
        order = np.argsort(-scored.score_B, kind="stable")[: request.top_k]
        ranked = [
            RankedItem(
                id=items[i].id,
                score=float(scored.score_B[i]),
                predictions={
                    task: float(scored.prediction_BT[i, t]) for task, t in chosen
                },
                details={
                    task: {name: float(detail_B[i]) for name, detail_B in of.items()}
                    for task, of in told.items()
                }
                if request.details
                else UNSET,
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
            scoring=self._scoring,
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
        scored = self.score(raw.table, details=request.details)
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
            scoring=self._scoring,
            details={
                task: {
                    n: detail_B.tolist() for n, detail_B in scored.details[task].items()
                }
                for task, _ in chosen
                if task in scored.details
            }
            if request.details
            else UNSET,
        )

    def respond(
        self, requests: Sequence[RankRequest | ScoreRequest], *, now_us: int
    ) -> list[RankResponse | ScoreResponse | RequestError | DataError]:
        """Answer several requests; one that is refused harms no other.

        Args:
            requests: In any mix.
            now_us: Microseconds since 1970, taken where a request names no time.

        Returns:
            For each request its response, or why it was refused.
        """
        responses: list[RankResponse | ScoreResponse | RequestError | DataError] = []
        for request in requests:
            try:
                responses.append(
                    self.rank(request, now_us=now_us)
                    if isinstance(request, RankRequest)
                    else self.answer(request, now_us=now_us)
                )
            except (RequestError, DataError) as fault:
                responses.append(fault)
        return responses

    def example(self) -> RankRequest:
        """Give a small request that is answered: for warm-up and documentation."""
        items = self._bundle.store.items
        keys = self._bundle.recipe.data.keys
        kinds = {column.name: column.type for column in self.card.signature}
        # A made-up user: no real one belongs in a page of documentation.
        user = UserInput()
        if keys.user is not None:
            user = UserInput(id=1 if kinds[keys.user] == "int" else "user-1")
        ids: list[Id] = [None, None]
        if keys.item is not None and items is not None and items.rows.num_rows:
            ids = items.rows.column(items.key).slice(0, 3).to_pylist()
        elif keys.item is not None:
            ids = [1, 2, 3] if kinds[keys.item] == "int" else ["item-1", "item-2"]
        return RankRequest(user=user, item_ids=ids, top_k=2)

    def example_rows(self) -> ScoreRequest:
        """Give rows that are scored: the candidates of ``example``."""
        example, keys = self.example(), self._bundle.recipe.data.keys
        rows: list[dict[str, Cell]] = []
        for item_id in example.item_ids or ():
            row: dict[str, Cell] = {}
            if keys.user is not None:
                row[keys.user] = example.user.id
            if keys.item is not None:
                row[keys.item] = item_id
            rows.append(row)
        return ScoreRequest(rows=rows)

    def _known(
        self,
        table: EntityTable | None,
        key: str | None,
        rows: pa.Table,
        stored_B: Bool[np.ndarray, " batch"],
    ) -> Bool[np.ndarray, " batch"]:
        """Where there is no table to know a key, the vocabulary of its feature does."""
        if table is not None or key is None:
            return stored_B
        known_B = self._bundle.featurizer.known(key, rows.column(key))
        return stored_B if known_B is None else known_B

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


def _card(bundle: Bundle, scoring: Scoring) -> ModelCard:
    recipe, info = bundle.recipe, bundle.info
    return ModelCard(
        name=recipe.name,
        version=bundle.version,
        created=info.created,
        description=recipe.description,
        tasks=[
            TaskCard(task.name, task.kind, list(details))
            for task, details in zip(
                recipe.tasks, bundle.network.detail_names, strict=True
            )
        ],
        scoring=scoring,
        signature=_signature(bundle),
        metrics=info.metrics,
    )


def _signature(bundle: Bundle) -> list[InputColumn]:
    """Say why each raw column is read; leave out what a caller cannot know yet."""
    data = bundle.recipe.data
    histories = tuple(
        f"{feature.name}."
        for feature in bundle.recipe.features
        if isinstance(feature, HistoryFeature)
    )
    columns = []
    for column in bundle.signature:
        if column.history_only:
            continue
        role: Literal["key", "timestamp", "feature", "history"] = "feature"
        unit = None
        if column.name in (data.keys.user, data.keys.item):
            role = "key"
        elif data.timestamp is not None and column.name == data.timestamp.column:
            role, unit = "timestamp", data.timestamp.unit
        elif column.name.startswith(histories):
            role = "history"
            if data.timestamp is not None and column.name.endswith(".time"):
                unit = data.timestamp.unit
        columns.append(InputColumn(column.name, column.type, column.origin, role, unit))
    return columns
