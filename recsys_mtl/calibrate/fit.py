"""Calibrators from the predictions and labels of validation rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

import numpy as np
from jaxtyping import Float

from recsys_mtl.calibrate.calibration import Calibration
from recsys_mtl.calibrate.calibrator import (
    Calibrator,
    IsotonicCalibrator,
    PlattCalibrator,
    SamplingCorrection,
    TemperatureCalibrator,
    logit,
    sigmoid,
)
from recsys_mtl.config.calibration import (
    CalibrationSpec,
    IsotonicSpec,
    NoCalibration,
    PlattSpec,
    TemperatureSpec,
)
from recsys_mtl.config.task import BinaryTask, TaskSpec
from recsys_mtl.errors import DataError
from recsys_mtl.evaluate.ties import Ties

__all__ = ["MIN_SLOPE", "check_labels", "fit_calibration", "wants_calibration"]

MIN_SLOPE = 0.01
"""Least slope of a logit: a model that is no better than chance keeps its order."""

_MAX_STEPS = 100
_TOLERANCE = 1e-10

_Floats = Float[np.ndarray, " batch"]


def wants_calibration(tasks: Iterable[TaskSpec]) -> bool:
    """Tell whether anything is to be fitted or corrected."""
    return any(
        isinstance(task, BinaryTask)
        and (task.calibration.kind != "none" or task.negative_sampling is not None)
        for task in tasks
    )


def check_labels(
    tasks: Iterable[TaskSpec], positives_and_rows: Mapping[str, tuple[int, int]]
) -> None:
    """Refuse what could not be fitted, which is known before any training.

    Args:
        tasks: The recipe's.
        positives_and_rows: Of the validation split, by task.

    Raises:
        DataError: A task to fit has no positive or no negative.
    """
    for task in tasks:
        if not isinstance(task, BinaryTask) or task.calibration.kind == "none":
            continue
        positives, rows = positives_and_rows[task.name]
        if not 0 < positives < rows:
            raise DataError(
                f"calibration {task.calibration.kind!r} of task {task.name!r} needs "
                f"positives and negatives in the validation split, got {positives} "
                f"positives in {rows} labelled rows; take a larger validation split, "
                "or calibration: {kind: none}"
            )


def fit_calibration(
    tasks: Sequence[TaskSpec],
    label_BT: Float[np.ndarray, "batch tasks"],
    prediction_BT: Float[np.ndarray, "batch tasks"],
) -> Calibration:
    """Fit what every binary task asks for.

    Negatives that were left out of the training split alone are corrected for first,
    and the calibrator is fitted to the corrected predictions. Where validation rows are
    sampled too, the calibrator is fitted to them as they are, and the correction is
    the last step.

    Args:
        tasks: In the order of the columns.
        label_BT: Labels of validation rows, NaN where a task has none.
        prediction_BT: What the network predicts for them.

    Raises:
        DataError: A task to fit has no positive or no negative.
    """
    fitted: dict[str, tuple[Calibrator, ...]] = {}
    for t, task in enumerate(tasks):
        if not isinstance(task, BinaryTask):
            continue
        exists_B = ~np.isnan(label_BT[:, t])
        label_R = label_BT[exists_B, t].astype(np.float64)
        prob_R = prediction_BT[exists_B, t].astype(np.float64)
        check_labels([task], {task.name: (int(label_R.sum()), len(label_R))})
        before: tuple[Calibrator, ...] = ()
        after: tuple[Calibrator, ...] = ()
        sampling = task.negative_sampling
        if sampling is not None:
            step = SamplingCorrection(rate=sampling.rate, splits=sampling.splits)
            if sampling.splits == "train":
                before, prob_R = (step,), step.apply(prob_R)
            else:
                after = (step,)
        steps = (*before, *_fit(task.calibration, label_R, prob_R), *after)
        if steps:
            fitted[task.name] = steps
    return Calibration(tasks=fitted)


def _fit(
    spec: CalibrationSpec, label_B: _Floats, prob_B: _Floats
) -> tuple[Calibrator, ...]:
    match spec:
        case NoCalibration():
            return ()
        case PlattSpec():
            return (_platt(label_B, prob_B),)
        case TemperatureSpec():
            (slope,) = _logistic(logit(prob_B)[:, None], _targets(label_B))
            return (TemperatureCalibrator(temperature=1 / max(slope, MIN_SLOPE)),)
        case IsotonicSpec():
            return (_isotonic(label_B, prob_B),)
        case _:
            assert_never(spec)


def _platt(label_B: _Floats, prob_B: _Floats) -> PlattCalibrator:
    logit_B, target_B = logit(prob_B), _targets(label_B)
    ones_B = np.ones_like(logit_B)
    slope, intercept = _logistic(np.stack([logit_B, ones_B], axis=1), target_B)
    if slope < MIN_SLOPE:
        slope = MIN_SLOPE
        (intercept,) = _logistic(ones_B[:, None], target_B, offset_B=slope * logit_B)
    return PlattCalibrator(slope=slope, intercept=intercept)


def _isotonic(label_B: _Floats, prob_B: _Floats) -> IsotonicCalibrator:
    # Here, since a server, which fits nothing, has no need of scipy's optimisers.
    from scipy.optimize import isotonic_regression

    ties = Ties.of(_targets(label_B), prob_B)
    rate_P = isotonic_regression(ties.label_P / ties.rows_P, weights=ties.rows_P).x
    # Both ends of every level stretch say all there is to know.
    same_P = np.isclose(rate_P[1:], rate_P[:-1], rtol=0, atol=1e-12)
    keep_P = np.ones(len(rate_P), dtype=bool)
    keep_P[1:-1] = ~(same_P[:-1] & same_P[1:])
    return IsotonicCalibrator(
        predictions=tuple(ties.prediction_P[keep_P].tolist()),
        rates=tuple(np.maximum.accumulate(rate_P[keep_P]).tolist()),
    )


def _targets(label_B: _Floats) -> _Floats:
    """Platt's: a little inside 0 and 1, so that few rows make no certainty."""
    positives = label_B.sum()
    negatives = len(label_B) - positives
    likely = (positives + 1) / (positives + 2)
    return np.asarray(np.where(label_B == 1, likely, 1 / (negatives + 2)))


def _logistic(
    x_BK: Float[np.ndarray, "batch inputs"],
    target_B: _Floats,
    *,
    offset_B: _Floats | float = 0.0,
) -> list[float]:
    """Fit a logistic regression to probabilities by Newton's method.

    The loss is convex; a step that does not lower it is halved until it does.
    """

    def loss(weight_K: Float[np.ndarray, " inputs"]) -> float:
        logit_B = x_BK @ weight_K + offset_B
        # log(1 + exp(x)) - target * x, the cross entropy.
        return float(np.mean(np.logaddexp(0, logit_B) - target_B * logit_B))

    weight_K = np.zeros(x_BK.shape[1])
    best = loss(weight_K)
    for _ in range(_MAX_STEPS):
        prob_B = sigmoid(x_BK @ weight_K + offset_B)
        gradient_K = x_BK.T @ (prob_B - target_B) / len(target_B)
        spread_B = prob_B * (1 - prob_B) / len(target_B)
        curvature_KK = x_BK.T @ (spread_B[:, None] * x_BK)
        # Inputs that are all alike leave the curvature singular.
        step_K = np.linalg.lstsq(curvature_KK, gradient_K, rcond=None)[0]
        size = 1.0
        while size > _TOLERANCE and loss(weight_K - size * step_K) > best:
            size /= 2
        moved_K = weight_K - size * step_K
        now = loss(moved_K)
        if now >= best:
            break
        gain, best, weight_K = best - now, now, moved_K
        if gain < _TOLERANCE * _TOLERANCE:
            break
    return [float(weight) for weight in weight_K]
