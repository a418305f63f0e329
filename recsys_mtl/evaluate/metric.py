"""How good predictions are: numpy arrays in, a dictionary of floats out.

A metric that the data leave undefined, as the AUC of one class, is absent from the
dictionary; it is never NaN, so results are valid JSON. ``rows`` and ``positives`` are
always there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

import numpy as np
from jaxtyping import Float, Shaped

from recsys_mtl.config.task import (
    BinaryTask,
    OrdinalTask,
    SurvivalTask,
    TaskSpec,
    ValueTask,
)
from recsys_mtl.errors import ConfigError, DataError
from recsys_mtl.evaluate.auc import auc_with_interval, grouped_auc
from recsys_mtl.evaluate.calibration import NUM_CALIBRATION_BINS, bin_ties
from recsys_mtl.evaluate.curve import Curve
from recsys_mtl.evaluate.survival import survival_metrics
from recsys_mtl.evaluate.ties import Ties

__all__ = [
    "binary_metrics",
    "evaluate_tasks",
    "higher_is_better",
    "ordinal_metrics",
    "value_metrics",
]

_RISING = (
    "auc",
    "gauc",
    "rank_correlation",
    "kappa",
    "c_index",
    "c_index_uno",
)
_FALLING = (
    "log_loss",
    "normalised_entropy",
    "ece",
    "rmse",
    "mae",
    "integrated_brier",
)


def higher_is_better(metric: str) -> bool:
    """Tell which way a metric improves.

    Raises:
        ConfigError: The metric has no better end, or there is none of that name.

    Example:
        >>> higher_is_better("auc"), higher_is_better("rmse")
        (True, False)
    """
    if metric in _RISING:
        return True
    if metric in _FALLING:
        return False
    allowed = ", ".join((*_RISING, *_FALLING))
    raise ConfigError(
        f"a metric to improve must be one of {allowed}; got {metric!r}; name one of "
        "these"
    )


def evaluate_tasks(
    tasks: Iterable[TaskSpec],
    label_BT: Float[np.ndarray, "batch tasks"],
    prediction_BT: Float[np.ndarray, "batch tasks"],
    group_B: Shaped[np.ndarray, " batch"] | None = None,
    *,
    curves: Mapping[str, Curve] | None = None,
) -> dict[str, dict[str, float]]:
    """Measure every task on the rows where it exists. Rows do not weigh.

    Args:
        tasks: In the order of the columns.
        label_BT: NaN where the task has no label.
        prediction_BT: Expected labels: probabilities of binary tasks, amounts of value
            tasks, levels, times.
        group_B: Who saw the row, for grouped AUC; any sortable type.
        curves: By task of levels or times; metrics that need them are absent without.

    Raises:
        DataError: A label or prediction is outside its contract.
    """
    if group_B is not None:
        group_B = np.unique(group_B, return_inverse=True)[1]  # sort the keys once
    metrics: dict[str, dict[str, float]] = {}
    for t, task in enumerate(tasks):
        exists_B = ~np.isnan(label_BT[:, t])
        group_R = None if group_B is None else group_B[exists_B]
        curve = None if curves is None else curves.get(task.name)
        try:
            metrics[task.name] = _task_metrics(
                task,
                label_BT[exists_B, t],
                prediction_BT[exists_B, t],
                group_R,
                None if curve is None else curve.rows(exists_B),
            )
        except DataError as error:
            raise DataError(f"task {task.name!r}: {error}") from error
    return metrics


def _task_metrics(
    task: TaskSpec,
    label_R: Float[np.ndarray, " rows"],
    prediction_R: Float[np.ndarray, " rows"],
    group_R: Shaped[np.ndarray, " rows"] | None,
    curve: Curve | None,
) -> dict[str, float]:
    match task:
        case BinaryTask():
            return binary_metrics(label_R, prediction_R, group_R)
        case ValueTask():
            return value_metrics(label_R, prediction_R)
        case OrdinalTask():
            return ordinal_metrics(label_R, prediction_R, len(task.names), curve)
        case SurvivalTask(horizons=horizons):
            return survival_metrics(label_R, prediction_R, curve, horizons)
        case _:
            assert_never(task)


def binary_metrics(
    label_B: Float[np.ndarray, " batch"],
    prediction_B: Float[np.ndarray, " batch"],
    group_B: Shaped[np.ndarray, " batch"] | None = None,
) -> dict[str, float]:
    """Measure probabilities against what happened.

    ``auc`` with its 95 % interval ``auc_low``, ``auc_high``; ``log_loss``, clipped at
    the float's epsilon; ``normalised_entropy``, the log loss over that of always
    predicting the base rate; ``gauc``, the AUC within each of ``gauc_groups`` groups,
    weighted by rows, groups of one class left out; ``calibration_ratio``, predicted
    over actual positives; ``ece``, the mean distance of predicted and actual rate over
    ``ece_bins`` equally full bins.

    Args:
        label_B: Each 0 or 1.
        prediction_B: Probabilities of a 1.
        group_B: Groups of ``gauc``, usually users.

    Raises:
        DataError: A label is not 0 or 1, or a prediction is no probability.

    References:
        He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook",
        ADKDD 2014, doi:10.1145/2648584.2648589 (normalised entropy, calibration).
        Zhu et al., "Optimized Cost per Click in Taobao Display Advertising", KDD 2017,
        arXiv:1703.02091 (grouped AUC).

    Example:
        >>> label = np.array([0.0, 0.0, 1.0, 1.0])
        >>> binary_metrics(label, np.array([0.1, 0.4, 0.35, 0.8]))["auc"]
        0.75
    """
    _refuse(label_B, ~np.isin(label_B, (0.0, 1.0)), "label", "0 or 1")
    _refuse(
        prediction_B, ~((prediction_B >= 0) & (prediction_B <= 1)), "prediction", "0..1"
    )
    rows, positives = len(label_B), float(label_B.sum(dtype=np.float64))
    metrics = {"rows": float(rows), "positives": positives}
    if rows == 0:
        return metrics
    ties = Ties.of(label_B, prediction_B)
    metrics |= auc_with_interval(ties)
    metrics["log_loss"] = _log_loss(label_B, prediction_B)
    if 0 < positives < rows:
        rate = positives / rows
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        metrics["normalised_entropy"] = metrics["log_loss"] / float(entropy)
    if group_B is not None:
        metrics |= grouped_auc(label_B, prediction_B, group_B)
    metrics |= _calibration_ratio(label_B, prediction_B)
    table = bin_ties(ties, NUM_CALIBRATION_BINS)
    gap = np.abs(table.mean_prediction - table.mean_label)
    metrics["ece"] = float(np.average(gap, weights=table.rows))
    metrics["ece_bins"] = float(len(table.rows))
    return metrics


def value_metrics(
    label_B: Float[np.ndarray, " batch"], prediction_B: Float[np.ndarray, " batch"]
) -> dict[str, float]:
    """Measure predicted amounts: ``rmse``, ``mae``, Spearman's ``rank_correlation``.

    Also ``calibration_ratio``, the sum of predictions over the sum of labels.

    Raises:
        DataError: A label or prediction is not finite.

    Example:
        >>> value_metrics(np.array([1.0, 3.0]), np.array([2.0, 2.5]))["mae"]
        0.75
    """
    _refuse(label_B, ~np.isfinite(label_B), "label", "finite")
    _refuse(prediction_B, ~np.isfinite(prediction_B), "prediction", "finite")
    rows = len(label_B)
    metrics = {"rows": float(rows), "positives": float(np.count_nonzero(label_B > 0))}
    if rows == 0:
        return metrics
    error_B = prediction_B.astype(np.float64) - label_B
    metrics["rmse"] = float(np.sqrt(np.mean(error_B**2)))
    metrics["mae"] = float(np.mean(np.abs(error_B)))
    if np.ptp(label_B) > 0 and np.ptp(prediction_B) > 0:
        ranks = np.corrcoef(_ranks(label_B), _ranks(prediction_B))
        metrics["rank_correlation"] = float(ranks[0, 1])
    return metrics | _calibration_ratio(label_B, prediction_B)


def ordinal_metrics(
    label_B: Float[np.ndarray, " batch"],
    prediction_B: Float[np.ndarray, " batch"],
    num_levels: int,
    curve: Curve | None = None,
) -> dict[str, float]:
    """Measure expected levels, and with curves the probabilities of the levels.

    ``mae``, ``rank_correlation``; ``kappa``, Cohen's with quadratic weights, of the
    level nearest to the expected one; with curves ``log_loss``, clipped at the float's
    epsilon.

    Args:
        label_B: Numbers of levels, from 0.
        prediction_B: Expected levels.
        num_levels: How many levels there are.
        curve: Probability of a level above each but the highest.

    Raises:
        DataError: A label or prediction is not finite.

    References:
        Cohen, "Weighted Kappa", Psychological Bulletin 1968, doi:10.1037/h0026256.

    Example:
        >>> ordinal_metrics(np.array([0.0, 2.0]), np.array([0.4, 1.6]), 3)["kappa"]
        1.0
    """
    metrics = value_metrics(label_B, prediction_B)
    metrics.pop("rmse", None)
    metrics.pop("calibration_ratio", None)
    if len(label_B) == 0:
        return metrics
    nearest_B = np.clip(np.rint(prediction_B), 0, num_levels - 1)
    shares = [
        np.bincount(level_B.astype(np.int64), minlength=num_levels) / len(label_B)
        for level_B in (label_B, nearest_B)
    ]
    level = np.arange(num_levels)
    # What two raters would disagree by if they rated with these shares by chance.
    chance = shares[0] @ ((level[:, None] - level) ** 2) @ shares[1]
    if chance > 0:
        metrics["kappa"] = float(1 - np.mean((label_B - nearest_B) ** 2) / chance)
    if curve is not None:
        above_BL = np.pad(curve.above_BP, ((0, 0), (1, 1)))
        above_BL[:, 0] = 1.0
        place_B = label_B.astype(np.int64)[:, None]
        prob_BL = -np.diff(above_BL, axis=1)
        prob_B = np.take_along_axis(prob_BL, place_B, axis=1)[:, 0].astype(np.float64)
        epsilon = np.finfo(curve.above_BP.dtype).eps
        metrics["log_loss"] = float(-np.log(np.clip(prob_B, epsilon, 1.0)).mean())
    return metrics


def _ranks(value_B: Float[np.ndarray, " batch"]) -> Float[np.ndarray, " batch"]:
    """Ranks from 1, equal values sharing their mean; scipy's costs 50 MB to import."""
    _, place_B, count_P = np.unique(value_B, return_inverse=True, return_counts=True)
    rank_P = np.cumsum(count_P) - (count_P - 1) / 2
    ranks_B: np.ndarray = rank_P[place_B]
    return ranks_B


def _log_loss(
    label_B: Float[np.ndarray, " batch"], prediction_B: Float[np.ndarray, " batch"]
) -> float:
    epsilon = np.finfo(prediction_B.dtype).eps
    prob_B = np.clip(prediction_B.astype(np.float64), epsilon, 1 - epsilon)
    return float(-np.mean(np.log(np.where(label_B == 1, prob_B, 1 - prob_B))))


def _calibration_ratio(
    label_B: Float[np.ndarray, " batch"], prediction_B: Float[np.ndarray, " batch"]
) -> dict[str, float]:
    actual = label_B.sum(dtype=np.float64)
    if actual <= 0:
        return {}
    return {"calibration_ratio": float(prediction_B.sum(dtype=np.float64) / actual)}


def _refuse(
    value_B: Float[np.ndarray, " batch"],
    bad_B: Shaped[np.ndarray, " batch"],
    what: str,
    must_be: str,
) -> None:
    rows: Sequence[int] = np.flatnonzero(bad_B).tolist()
    if rows:
        raise DataError(
            f"every {what} must be {must_be}, got {value_B[rows[0]]} in row {rows[0]} "
            f"and {len(rows) - 1} more rows; look for a diverged training run or a "
            "wrong label column"
        )
