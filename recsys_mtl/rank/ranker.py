"""A bundle that answers: raw rows in, predictions and one score out."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from recsys_mtl.config.score import ScoreSpec
from recsys_mtl.errors import DataError, RequestError
from recsys_mtl.export.bundle import Bundle
from recsys_mtl.export.encoded import encode_store
from recsys_mtl.rank.answer import (
    Chosen,
    best_first,
    rank_response,
    score_response,
    told,
)
from recsys_mtl.rank.card import ModelCard
from recsys_mtl.rank.column import unknown_name
from recsys_mtl.rank.describe import card_of
from recsys_mtl.rank.encode import EncodedRequest, RequestEncoder
from recsys_mtl.rank.explain import explained
from recsys_mtl.rank.fusion import scoring
from recsys_mtl.rank.gap import GapCount, gap_counts
from recsys_mtl.rank.newest import window_lengths
from recsys_mtl.rank.observation import Observation
from recsys_mtl.rank.parts import RankParts
from recsys_mtl.rank.raw import RawRequest, RequestReader
from recsys_mtl.rank.request import (
    Cell,
    Id,
    RankRequest,
    RankResponse,
    ScoreRequest,
    ScoreResponse,
    UserInput,
)
from recsys_mtl.rank.scored import Scored
from recsys_mtl.rank.scorer import Scorer

__all__ = ["Ranker", "Scored"]

_logger = logging.getLogger(__name__)
Outcome = RankResponse | ScoreResponse | RequestError | DataError
_MOST_ROWS: Final = 1_000_000
"""Users and items up to which a bundle without encoded ones has them encoded at once;
it takes some ten seconds. Beyond, requests go through raw rows."""


class _Rows(NamedTuple):
    """A request's rows, encoded, and whether the bundle knows their users and items."""

    encoded: pa.Table
    known_user_B: npt.NDArray[np.bool_]
    known_item_B: npt.NDArray[np.bool_]


@final
@dataclass(frozen=True)
class _Asked:
    """A request that was read and encoded.

    Attributes:
        place: Among the requests of the call.
        request: As it came.
        chosen: Tasks to tell of.
        read: As it was read.
        encoded: Of one whose candidates share the user's features.
        rows: Of any other, joined and encoded.
    """

    place: int
    request: RankRequest | ScoreRequest
    chosen: Chosen
    read: RankParts | RawRequest
    encoded: EncodedRequest | None = None
    rows: _Rows | None = None

    @property
    def num_rows(self) -> int:
        if isinstance(self.read, RankParts):
            return len(self.read.ids)
        return int(self.read.table.num_rows)


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
        spec = recipe.fused_score if score is None else score
        self._scorer = Scorer(bundle, spec)
        self.tasks = self._scorer.tasks
        self.card: ModelCard = card_of(
            bundle, scoring(bundle.calibration, spec, self.tasks)
        )
        self._reader = RequestReader(
            self.card.signature,
            recipe.data.keys,
            recipe.data.timestamp,
            window_lengths(recipe.features),
        )

    @property
    def bundle(self) -> Bundle:
        """What it answers from."""
        return self._bundle

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
        assembled, encoded = self._scorer.encode(raw)
        predicted = self._scorer.of_rows(encoded, details=details)
        return self._scorer.fuse(predicted, *self._scorer.known(assembled))

    def rank(self, request: RankRequest, *, now_us: int) -> RankResponse:
        """Order candidates, best first; equal scores stay in the order given.

        Args:
            request: Who, when, and which candidates.
            now_us: Microseconds since 1970, taken where the request names no time.

        Raises:
            RequestError: The request does not fit the bundle's signature.
        """
        (outcome,) = self.respond([request], now_us=now_us)
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, RankResponse)
        return outcome

    def answer(self, request: ScoreRequest, *, now_us: int) -> ScoreResponse:
        """Score the rows of a request, in its order.

        Args:
            request: Rows or columns.
            now_us: Microseconds since 1970, taken where the request has no times.

        Raises:
            RequestError: The request does not fit the bundle's signature.
        """
        (outcome,) = self.respond([request], now_us=now_us)
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, ScoreResponse)
        return outcome

    @torch.inference_mode()
    def respond(
        self,
        requests: Sequence[RankRequest | ScoreRequest],
        *,
        now_us: int,
        observation: Observation | None = None,
    ) -> list[Outcome]:
        """Answer several requests together; one that is refused harms no other.

        Each request is read and encoded by itself. Those whose candidates share the
        user's features go through the network together, and so do the others.

        Args:
            requests: In any mix.
            now_us: Microseconds since 1970, taken where a request names no time.
            observation: Gains the time of each stage, and predictions.

        Returns:
            For each request its response, or why it was refused.
        """
        watched = Observation() if observation is None else observation
        outcomes: list[Outcome | None] = [None] * len(requests)
        together: list[_Asked] = []
        apart: list[_Asked] = []
        for place, request in enumerate(requests):
            try:
                asked = self._ask(place, request, now_us, watched)
            except (RequestError, DataError) as fault:
                outcomes[place] = fault
                continue
            (apart if asked.encoded is None else together).append(asked)
        for group, score in (
            (together, self._score_together),
            (apart, self._score_apart),
        ):
            if not group:
                continue
            scored, end = score(group, watched), 0
            for asked in group:
                start, end = end, end + asked.num_rows
                part = scored.rows(start, end)
                watched.prediction_BT[asked.place] = part.prediction_BT
                if isinstance(asked.read, RankParts):
                    watched.ids[asked.place] = asked.read.ids
                try:
                    answer = self._tell(asked, part, watched, len(requests))
                except (RequestError, DataError) as fault:
                    outcomes[asked.place] = fault
                else:
                    outcomes[asked.place] = answer
        assert None not in outcomes
        return [outcome for outcome in outcomes if outcome is not None]

    def _ask(
        self,
        place: int,
        request: RankRequest | ScoreRequest,
        now_us: int,
        watched: Observation,
    ) -> _Asked:
        """Read and encode one request."""
        read: RankParts | RawRequest
        with watched.stage("read"):
            chosen = self._chosen(request.tasks)
            if isinstance(request, ScoreRequest):
                read = self._reader.rows(request, now_us)
            else:
                read = self._reader.ranking(request, now_us)
        with watched.stage("encode"):
            encoder = self._encoder
            if isinstance(read, RankParts) and encoder and encoder.splits(read):
                encoded = encoder.encode(read)
                return _Asked(place, request, chosen, read, encoded=encoded)
            assembled, encoded_rows = self._scorer.encode(read.table)
            # Not the raw rows, which may be large.
            rows = _Rows(encoded_rows, *self._scorer.known(assembled))
            return _Asked(place, request, chosen, read, rows=rows)

    def _score_together(self, group: list[_Asked], watched: Observation) -> Scored:
        """Score requests whose candidates share the user's features."""
        encoder = self._encoder
        assert encoder is not None
        with watched.stage("encode"):
            found = encoder.together([a.encoded for a in group if a.encoded])
        batch = found.batch
        with watched.stage("forward"):
            predicted = self._scorer.of_requests(batch, details=_any_details(group))
        with watched.stage("fuse"):
            return self._scorer.fuse(
                predicted, found.known_user_R[batch.request_N], found.known_item_N
            )

    def _score_apart(self, group: list[_Asked], watched: Observation) -> Scored:
        """Score requests of whole rows."""
        with watched.stage("encode"):
            rows = [asked.rows for asked in group if asked.rows is not None]
            encoded = pa.concat_tables(of.encoded for of in rows)
            known_user_B = np.concatenate([of.known_user_B for of in rows])
            known_item_B = np.concatenate([of.known_item_B for of in rows])
        with watched.stage("forward"):
            predicted = self._scorer.of_rows(encoded, details=_any_details(group))
        with watched.stage("fuse"):
            return self._scorer.fuse(predicted, known_user_B, known_item_B)

    def gaps(
        self, request: RankRequest | ScoreRequest, *, now_us: int, most_rows: int = 100
    ) -> dict[str, GapCount]:
        """Count what is missing in a request, without scoring it.

        Args:
            request: One that was answered.
            now_us: Microseconds since 1970, taken where the request names no time.
            most_rows: Candidates to look at, evenly spaced, which bounds the time.

        Returns:
            By feature.

        Raises:
            RequestError: The request does not fit the bundle's signature.
        """
        if isinstance(request, ScoreRequest):
            raw = self._reader.rows(request, now_us).table
            some = raw.take(pa.array(_evenly(raw.num_rows, most_rows)))
        else:
            parts = self._reader.ranking(request, now_us)
            some = parts.table_of(candidates=_evenly(len(parts.ids), most_rows))
        return gap_counts(self._bundle.featurizer, self._bundle.store, some)

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

    @cached_property
    def _encoder(self) -> RequestEncoder | None:
        """What encodes requests; none where nobody encoded so many users and items."""
        bundle = self._bundle
        encoded = bundle.encoded
        if encoded is None:
            tables = (bundle.store.users, bundle.store.items)
            if sum(t.rows.num_rows for t in tables if t is not None) > _MOST_ROWS:
                _logger.warning(
                    "bundle %s has no encoded users and items, and too many to encode "
                    "them now: requests take longer; write the bundle again",
                    bundle.folder,
                )
                return None
            encoded = encode_store(bundle.featurizer, bundle.store)
        return RequestEncoder(bundle.featurizer, bundle.store, encoded)

    def _tell(
        self, asked: _Asked, scored: Scored, watched: Observation, answered: int
    ) -> RankResponse | ScoreResponse:
        request, read = asked.request, asked.read
        with watched.stage("fuse"):
            if isinstance(request, ScoreRequest):
                assert isinstance(read, RawRequest)
                return score_response(self.card, request, read, scored, asked.chosen)
            assert isinstance(read, RankParts)
            order = best_first(scored, request.top_k)
        explanation = None
        if request.explain:
            best = read.table_of(candidates=order)
            network = told(scored.network_BT[order], asked.chosen)
            explanation = explained(self._bundle, best, network, watched, answered)
        with watched.stage("fuse"):
            return rank_response(
                self.card, request, read, scored, asked.chosen, order, explanation
            )

    def _chosen(self, tasks: list[str] | None) -> list[tuple[str, int]]:
        if tasks is None:
            return [(task, t) for t, task in enumerate(self.tasks)]
        for i, task in enumerate(tasks):
            if task not in self.tasks:
                raise unknown_name(f"tasks[{i}]", task, self.tasks)
        return [(task, self.tasks.index(task)) for task in tasks]


def _evenly(count: int, most: int) -> npt.NDArray[np.int64]:
    """At most ``most`` places among ``count``, evenly spaced."""
    return np.arange(0, count, max(1, -(-count // most)))


def _any_details(group: list[_Asked]) -> bool:
    return any(asked.request.details for asked in group)
