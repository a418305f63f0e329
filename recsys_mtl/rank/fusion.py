"""One number to sort by."""

from collections.abc import Sequence
from hashlib import sha256
from typing import assert_never

import numpy as np
from jaxtyping import Float

from recsys_mtl.calibrate import Calibration
from recsys_mtl.config.score import ProductScore, ScoreSpec, SumScore
from recsys_mtl.errors import ConfigError
from recsys_mtl.rank.card import Scoring

__all__ = ["FLOOR", "LARGEST", "fuse", "scoring"]

FLOOR = 1e-12
"""Least prediction that a product reads, so that its logarithm is finite."""

LARGEST = float(np.finfo(np.float64).max)
"""Largest score, and with a minus the least: JSON has no infinity."""


def fuse(
    spec: ScoreSpec,
    prediction_BT: Float[np.ndarray, "batch tasks"],
    tasks: tuple[str, ...],
) -> Float[np.ndarray, " batch"]:
    r"""Compute :math:`\sum_t w_t p_t` or :math:`\prod_t p_t^{w_t}` for every row.

    What overflows is ``LARGEST``, and what is no number comes last, as ``-LARGEST``.

    Args:
        spec: Kind and weights; tasks it does not name count for nothing.
        prediction_BT: Predictions by row and task.
        tasks: Names of the columns of ``prediction_BT``.

    Shape:
        - prediction_BT: ``(batch, tasks)``
        - return: ``(batch,)``, float64, finite

    Example:
        >>> spec = SumScore(weights={"click": 1.0, "order": 10.0})
        >>> fuse(spec, np.array([[0.5, 0.25]]), ("click", "order"))
        array([3.])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        score_B = _fused(spec, prediction_BT, tasks)
    if not np.isfinite(score_B).all():
        np.nan_to_num(score_B, copy=False, nan=-LARGEST)
    return score_B


def _fused(
    spec: ScoreSpec,
    prediction_BT: Float[np.ndarray, "batch tasks"],
    tasks: tuple[str, ...],
) -> Float[np.ndarray, " batch"]:
    # Each row is summed by itself, in one order: a matrix product may sum rows of a
    # large batch in another order than rows of a small one.
    score_B = np.zeros(prediction_BT.shape[0], dtype=np.float64)
    match spec:
        case SumScore(weights=weights):
            for task, weight in weights.items():
                score_B += weight * prediction_BT[:, tasks.index(task)]
            return score_B
        case ProductScore(weights=weights):
            for task, weight in weights.items():
                prediction_B = np.asarray(
                    prediction_BT[:, tasks.index(task)], dtype=np.float64
                )
                score_B += weight * np.log(np.maximum(prediction_B, FLOOR))
            return np.asarray(np.exp(score_B))
        case _:
            assert_never(spec)


def scoring(calibration: Calibration, spec: ScoreSpec, tasks: Sequence[str]) -> Scoring:
    """Tell how predictions become the score.

    Raises:
        ConfigError: The score weighs what is no task.
    """
    for name in spec.weights:
        if name not in tasks:
            raise ConfigError(
                f"score.weights must name tasks of the model ({', '.join(tasks)}), got "
                f"{name!r}; correct the name or take it out"
            )
    # Sorted: the order in which weights were written changes nothing.
    written = f"{spec.kind} {sorted(spec.weights.items())} {calibration.version}"
    return Scoring(
        version=sha256(written.encode()).hexdigest()[:12],
        kind=spec.kind,
        weights=dict(spec.weights),
        calibration=dict(calibration.names),
    )
