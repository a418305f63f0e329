"""Predictions -> histograms by task."""

from functools import cache
from typing import final

import numpy as np
from jaxtyping import Float

from recsys_mtl.rank.card import ModelCard
from serving.observability.bins import FloatBins
from serving.observability.family import AMOUNT_EDGES, PROBABILITY_EDGES
from serving.observability.ledger import Ledger, TaskHistograms

__all__ = ["PredictionTally"]


@cache
def _bins(edges: tuple[float, ...]) -> FloatBins:
    return FloatBins(edges)


@final
class PredictionTally:
    """Counts predictions of one model.

    Args:
        ledger: Gains the counts.
        card: Of the model.
    """

    def __init__(self, ledger: Ledger, card: ModelCard) -> None:
        self._ledger, self._card = ledger, card
        self._groups: list[tuple[list[int], TaskHistograms]] = []
        for name, edges, are_binary in (
            ("recsys_predicted_probability", PROBABILITY_EDGES, True),
            ("recsys_predicted_amount", AMOUNT_EDGES, False),
        ):
            places = [
                t
                for t, task in enumerate(card.tasks)
                if (task.kind == "binary") == are_binary
            ]
            if places:
                histograms = [
                    ledger.histogram(name, card.name, card.version, card.tasks[t].name)
                    for t in places
                ]
                self._groups.append((places, TaskHistograms(histograms, _bins(edges))))

    def count(self, prediction_NT: Float[np.ndarray, "candidates tasks"]) -> None:
        """Count predictions, tasks in the order of the card.

        Shape:
            - prediction_NT: ``(candidates, tasks)``
        """
        # As a product: summing along the first axis takes five times as long.
        total_T = np.ones(len(prediction_NT), np.float32) @ prediction_NT
        if not np.isfinite(total_T).all():
            prediction_NT = self._finite(prediction_NT)
            total_T = prediction_NT.sum(axis=0)
        for places, histograms in self._groups:
            if len(places) == prediction_NT.shape[1]:
                histograms.observe(prediction_NT, total_T)
            else:
                part = np.ascontiguousarray(prediction_NT[:, places])
                histograms.observe(part, total_T[places])

    def _finite(
        self, prediction_NT: Float[np.ndarray, "candidates tasks"]
    ) -> Float[np.ndarray, "finite tasks"]:
        """Leave out, and count, candidates of which a prediction is not finite."""
        finite_NT = np.isfinite(prediction_NT)
        for task, missed in zip(
            self._card.tasks, (~finite_NT).sum(axis=0).tolist(), strict=True
        ):
            of = (self._card.name, self._card.version, task.name)
            self._ledger.add(
                "recsys_predictions_not_finite_total", *of, by=float(missed)
            )
        finite: Float[np.ndarray, "finite tasks"] = prediction_NT[finite_NT.all(axis=1)]
        return finite
