"""Requests and batches -> counts."""

import asyncio
import logging
import time
from http import HTTPStatus
from typing import Final

import numpy as np

from recsys_mtl.errors import RecsysError
from recsys_mtl.rank.card import ModelCard
from recsys_mtl.rank.request import (
    RankResponse,
    ScoreResponse,
)
from serving.observability.feedback import Answers
from serving.observability.ledger import Ledger
from serving.observability.note import BatchNote, LookupNote
from serving.observability.prediction import PredictionTally
from serving.observability.record import Record

__all__ = ["count_batch", "count_features", "count_lookup", "count_request"]

logger = logging.getLogger(__name__)

_CLIENT_LEFT: Final = 499


def count_request(
    ledger: Ledger, record: Record, total_s: float, *, answered: bool, slow: bool
) -> None:
    """Count a request that has ended.

    Args:
        ledger: Gains the counts.
        record: Of the request.
        total_s: From its headers to the end of the answer.
        answered: Whether it was of a kind that models or feedback answer, so that its
            time says something.
        slow: Whether it took too long.
    """
    route, model, version = record.route, record.model, record.version
    ledger.add("recsys_requests_total", route, model, version, str(int(record.status)))
    if not answered:
        return
    for name, seconds in record.seconds().items():
        ledger.histogram("recsys_stage_seconds", route, name).observe(seconds)
    ledger.histogram("recsys_stage_seconds", route, "total").observe(total_s)
    if model:
        candidates = ledger.histogram("recsys_candidates", route, model)
        candidates.observe(float(record.candidates))
    if slow:
        ledger.add("recsys_slow_requests_total", route)
    if record.degraded:
        ledger.add("recsys_degraded_total", route, model, version)
    match record.status:
        case HTTPStatus.TOO_MANY_REQUESTS:
            ledger.add("recsys_shed_total", route, record.reason or record.code)
        case HTTPStatus.GATEWAY_TIMEOUT:
            ledger.add("recsys_deadline_missed_total", route)
        case _ if record.status == _CLIENT_LEFT:
            ledger.add("recsys_clients_left_total", route)


def count_batch(
    ledger: Ledger, note: BatchNote, tally: PredictionTally, answers: Answers
) -> None:
    """Count a batch, its predictions and its unknown ids; remember its answers.

    Args:
        ledger: Gains the counts.
        note: Of the batch.
        tally: Of the model.
        answers: Gain those that feedback may come for.
    """
    card = note.model.card
    rows = 0
    for first, seen in note.observations:
        for place, prediction_NT in seen.prediction_BT.items():
            rows += len(prediction_NT)
            ask = note.asks[first + place]
            answer = note.outcomes[first + place]
            _count_ids(ledger, card, answer, len(prediction_NT))
            if place in seen.ids and ask.request_id is not None:
                ids = seen.ids[place]
                answers.remember(ask.request_id, card, ids, prediction_NT)
        parts = list(seen.prediction_BT.values())
        if parts:
            tally.count(parts[0] if len(parts) == 1 else np.concatenate(parts))
    ledger.histogram("recsys_batch_requests", card.name).observe(float(len(note.asks)))
    ledger.histogram("recsys_batch_rows", card.name).observe(float(rows))


def count_lookup(ledger: Ledger, note: LookupNote) -> None:
    """Count a lookup of stored users and items.

    Args:
        ledger: Gains the counts.
        note: Of the lookup.
    """
    ledger.add("recsys_entity_lookups_total", note.outcome)
    if note.seconds is not None:
        ledger.observe("recsys_entity_lookup_seconds", value=note.seconds)
    for kind, count in note.asked.items():
        missed = note.missed.get(kind, 0)
        ledger.add("recsys_entity_keys_total", kind, by=float(count))
        ledger.add("recsys_entity_misses_total", kind, by=float(missed))
    for fault, count in (("damaged", note.damaged), ("misfit", note.misfits)):
        if count:
            ledger.add("recsys_entity_faults_total", fault, by=float(count))


async def count_features(ledger: Ledger, note: BatchNote) -> None:
    """Count missing and unseen values in the batch's last request, in a thread.

    Args:
        ledger: Gains the counts.
        note: Of the batch.
    """
    answered = [
        ask
        for ask, outcome in zip(note.asks, note.outcomes, strict=True)
        if not isinstance(outcome, BaseException)
    ]
    if not answered:
        return
    try:
        gaps = await asyncio.to_thread(
            note.model.ranker.gaps, answered[-1], now_us=time.time_ns() // 1_000
        )
    except RecsysError as error:
        logger.warning("missing features could not be counted: %s", error)
        return
    of = (note.model.card.name, note.model.card.version)
    for feature, gap in gaps.items():
        for name, count in (
            ("recsys_feature_cells_total", gap.rows),
            ("recsys_missing_cells_total", gap.missing),
            ("recsys_unseen_cells_total", gap.unseen),
        ):
            ledger.add(name, *of, feature, by=float(count))


def _count_ids(ledger: Ledger, card: ModelCard, answer: object, rows: int) -> None:
    if isinstance(answer, RankResponse):
        users, unknown_users = 1, int(answer.unknown.user)
        # The answer may be cut to the best; the unknown are told of all candidates.
        items, unknown_items = rows, len(answer.unknown.items)
    elif isinstance(answer, ScoreResponse):
        users = items = rows
        unknown_users = len(answer.unknown.users)
        unknown_items = len(answer.unknown.items)
    else:
        return
    for kind, count, unknown in (
        ("user", users, unknown_users),
        ("item", items, unknown_items),
    ):
        of = (card.name, card.version, kind)
        ledger.add("recsys_ids_total", *of, by=float(count))
        ledger.add("recsys_unknown_ids_total", *of, by=float(unknown))
