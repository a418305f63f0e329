"""Predicted against actual means over the range of predictions."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from recsys_mtl.evaluate.ties import Ties, starts, sums

__all__ = ["NUM_CALIBRATION_BINS", "CalibrationTable", "bin_ties", "calibration_table"]

NUM_CALIBRATION_BINS = 20
"""Equally full bins of predictions behind ``ece`` and the calibration plots."""

_Z = 1.959963984540054  # the normal distribution's 97.5 % point


@final
@dataclass(frozen=True)
class CalibrationTable:
    """Predicted and actual means in equally full bins, from low to high predictions.

    Attributes:
        rows: Rows of the bin. Equal predictions share a bin, so sizes may differ and
            bins may be fewer than asked for.
        mean_prediction: What was promised.
        mean_label: What came.
        label_low: Lower end of the 95 % interval of ``mean_label``: Wilson's for labels
            0 and 1, the normal one for amounts.
        label_high: Upper end.
    """

    rows: Float[np.ndarray, " bins"]
    mean_prediction: Float[np.ndarray, " bins"]
    mean_label: Float[np.ndarray, " bins"]
    label_low: Float[np.ndarray, " bins"]
    label_high: Float[np.ndarray, " bins"]


def calibration_table(
    label_B: Float[np.ndarray, " batch"],
    prediction_B: Float[np.ndarray, " batch"],
    bins: int = NUM_CALIBRATION_BINS,
) -> CalibrationTable:
    """Compare predicted and actual means over the range of predictions.

    Example:
        >>> table = calibration_table(np.array([0.0, 1.0]), np.array([0.2, 0.9]), 2)
        >>> table.mean_label.tolist()
        [0.0, 1.0]
    """
    return bin_ties(Ties.of(label_B, prediction_B), bins)


def bin_ties(ties: Ties, bins: int) -> CalibrationTable:
    """Put rows into ``bins`` equally full bins; see ``calibration_table``."""
    total = ties.rows_P.sum()
    middle_P = np.cumsum(ties.rows_P) - ties.rows_P / 2
    # By middle rank: equal predictions fall together, whatever the order of rows.
    bin_P = np.minimum(middle_P * bins / max(total, 1), bins - 1).astype(np.int64)
    starts_P = starts(bin_P)
    rows = sums(ties.rows_P, starts_P)
    prediction = sums(ties.prediction_P * ties.rows_P, starts_P) / rows
    label = sums(ties.label_P, starts_P) / rows
    square = sums(ties.square_P, starts_P) / rows
    if np.array_equal(ties.square_P, ties.label_P):  # labels are 0 and 1
        low, high = _wilson(label, rows)
    else:
        half = _Z * np.sqrt(np.maximum(square - label**2, 0) / rows)
        low, high = label - half, label + half
    return CalibrationTable(rows, prediction, label, low, high)


def _wilson(
    rate: Float[np.ndarray, " bins"], rows: Float[np.ndarray, " bins"]
) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    shrink = 1 + _Z**2 / rows
    centre = (rate + _Z**2 / (2 * rows)) / shrink
    half = _Z * np.sqrt(rate * (1 - rate) / rows + (_Z / (2 * rows)) ** 2) / shrink
    return np.maximum(centre - half, 0), np.minimum(centre + half, 1)
