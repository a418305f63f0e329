"""What a server is at this moment, as gauges."""

import time
from datetime import datetime
from typing import Final

import psutil

from recsys_mtl import __version__
from recsys_mtl.rank.card import ModelCard
from serving.observability.feedback import Answers
from serving.observability.ledger import Ledger
from serving.service import Service

__all__ = ["set_gauges"]

_PROCESS: Final = psutil.Process()


def set_gauges(ledger: Ledger, service: Service, answers: Answers) -> None:
    """Tell the queue, the models and the process.

    Args:
        ledger: Gains them; gauges of models that are gone leave it.
        service: Whose queue and models.
        answers: That feedback can be joined to.
    """
    ledger.clear_gauges()
    batcher = service.batcher
    for name, number in (
        ("recsys_queue_requests", batcher.waiting_requests),
        ("recsys_queue_rows", batcher.waiting_rows),
        ("recsys_queue_wait_seconds", batcher.expected_wait_s()),
        ("recsys_feedback_window_answers", len(answers)),
        ("recsys_feedback_window_bytes", answers.bytes),
        ("recsys_replicas", 1),
        ("recsys_replicas_ready", int(service.ready)),
        ("recsys_memory_bytes", _PROCESS.memory_info().rss),
    ):
        ledger.set(name, to=float(number))
    ledger.set("recsys_build_info", __version__, to=1.0)
    for model in service.models.models:
        _set_model(ledger, model.card, model.traffic)


def _set_model(ledger: Ledger, card: ModelCard, traffic: float) -> None:
    of = (card.name, card.version)
    created = datetime.fromisoformat(card.created).timestamp()
    ledger.set("recsys_model_info", *of, card.created, to=1.0)
    ledger.set("recsys_model_created_timestamp_seconds", *of, to=created)
    ledger.set("recsys_model_age_seconds", *of, to=time.time() - created)
    ledger.set("recsys_model_traffic_ratio", *of, to=traffic)
    scoring = card.scoring
    ledger.set("recsys_scoring_info", *of, scoring.version, scoring.kind, to=1.0)
    for task, weight in scoring.weights.items():
        ledger.set("recsys_score_weight", *of, task, to=weight)
    for task, steps in scoring.calibration.items():
        ledger.set("recsys_calibrator_info", *of, task, steps, to=1.0)
