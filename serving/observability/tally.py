"""Requests and batches -> counts."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import numpy as np
from jaxtyping import Float

from recsys_mtl.errors import RecsysError
from recsys_mtl.rank.request import (
    RankResponse,
    ScoreResponse,
)
from serving.observability.feedback import Answers
from serving.observability.ledger import Ledger
from serving.observability.note import BatchNote, LookupNote
from serving.observability.prediction import PredictionTally
from serving.observability.record import Record

__all__ = ["count_batches", "count_features", "count_lookup", "count_request"]

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


def count_batches(
    ledger: Ledger,
    notes: Sequence[BatchNote],
    tally: PredictionTally,
    answers: Answers,
) -> None:
    """Count batches, predictions and unknown ids; remember the answers.

    Args:
        ledger: Gains the counts.
        notes: Of batches of one model, at least one.
        tally: Of the model.
        answers: Gain those that feedback may come for.
    """
    card = notes[0].model.card
    parts: list[Float[np.ndarray, "candidates tasks"]] = []
    ids: Counter[tuple[str, str]] = Counter()
    requests = ledger.histogram("recsys_batch_requests", card.name)
    batch_rows = ledger.histogram("recsys_batch_rows", card.name)
    for note in notes:
        rows = 0
        for first, seen in note.observations:
            for place, prediction_NT in seen.prediction_BT.items():
                rows += len(prediction_NT)
                parts.append(prediction_NT)
                ask = note.asks[first + place]
                _count_ids(ids, note.outcomes[first + place], len(prediction_NT))
                if place in seen.ids and ask.request_id is not None:
                    answers.remember(
                        ask.request_id, card, seen.ids[place], prediction_NT
                    )
        requests.observe(float(len(note.asks)))
        batch_rows.observe(float(rows))
    if parts:
        tally.count(parts[0] if len(parts) == 1 else np.concatenate(parts))
    for (name, kind), count in ids.items():
        ledger.add(name, card.name, card.version, kind, by=float(count))


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


def _count_ids(ids: Counter[tuple[str, str]], answer: object, rows: int) -> None:
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
    ids["recsys_ids_total", "user"] += users
    ids["recsys_ids_total", "item"] += items
    ids["recsys_unknown_ids_total", "user"] += unknown_users
    ids["recsys_unknown_ids_total", "item"] += unknown_items
