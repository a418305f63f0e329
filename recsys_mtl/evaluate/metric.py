"""How good predictions are: numpy arrays in, a dictionary of floats out.

A metric that the data leave undefined, as the AUC of one class, is absent from the
dictionary; it is never NaN, so results are valid JSON. ``rows`` and ``positives`` are
always there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from recsys_mtl.config.task import TaskSpec
from recsys_mtl.errors import ConfigError, DataError

__all__ = [
    "NUM_CALIBRATION_BINS",
    "CalibrationTable",
    "binary_metrics",
    "calibration_table",
    "evaluate_tasks",
    "grouped_auc",
    "higher_is_better",
    "value_metrics",
]

NUM_CALIBRATION_BINS = 20
"""Equally full bins of predictions behind ``ece`` and the calibration plots."""

_Z = float(norm.ppf(0.975))

_RISING = ("auc", "gauc", "rank_correlation")
_FALLING = ("log_loss", "normalised_entropy", "ece", "rmse", "mae")


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
) -> dict[str, dict[str, float]]:
    """Measure every task on the rows where it exists.

    Args:
        tasks: In the order of the columns.
        label_BT: NaN where the task has no label.
        prediction_BT: Probabilities of binary tasks, amounts of value tasks.
        group_B: Who saw the row, for grouped AUC; any sortable type.

    Raises:
        DataError: A label or prediction is outside its contract.
    """
    if group_B is not None:
        group_B = np.unique(group_B, return_inverse=True)[1]  # sort the keys once
    metrics: dict[str, dict[str, float]] = {}
    for t, task in enumerate(tasks):
        exists_B = ~np.isnan(label_BT[:, t])
        label_N, prediction_N = label_BT[exists_B, t], prediction_BT[exists_B, t]
        try:
            if task.kind == "binary":
                group_N = None if group_B is None else group_B[exists_B]
                metrics[task.name] = binary_metrics(label_N, prediction_N, group_N)
            else:
                metrics[task.name] = value_metrics(label_N, prediction_N)
        except DataError as error:
            raise DataError(f"task {task.name!r}: {error}") from error
    return metrics


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
    ties = _Ties.of(label_B, prediction_B)
    metrics |= _auc_with_interval(ties)
    metrics["log_loss"] = _log_loss(label_B, prediction_B)
    if 0 < positives < rows:
        rate = positives / rows
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        metrics["normalised_entropy"] = metrics["log_loss"] / float(entropy)
    if group_B is not None:
        metrics |= grouped_auc(label_B, prediction_B, group_B)
    metrics |= _calibration_ratio(label_B, prediction_B)
    table = _bin(ties, NUM_CALIBRATION_BINS)
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
        ranks = np.corrcoef(rankdata(label_B), rankdata(prediction_B))
        metrics["rank_correlation"] = float(ranks[0, 1])
    return metrics | _calibration_ratio(label_B, prediction_B)


def grouped_auc(
    label_B: Float[np.ndarray, " batch"],
    prediction_B: Float[np.ndarray, " batch"],
    group_B: Shaped[np.ndarray, " batch"],
) -> dict[str, float]:
    """Average the AUC within groups, weighted by the group's rows.

    Groups of one class have no AUC and are left out. All groups share one sort.

    Returns:
        ``gauc_groups``, and ``gauc`` if any group has both classes.
    """
    group_B = np.unique(group_B, return_inverse=True)[1]
    order_B = np.lexsort((prediction_B, group_B))
    group_B, prediction_B = group_B[order_B], prediction_B[order_B]
    starts_V = _starts(group_B, prediction_B)
    rows_V = np.diff(starts_V, append=len(group_B))
    positive_V = _sums(label_B[order_B], starts_V)
    negative_V = rows_V - positive_V
    group_V = group_B[starts_V]
    # Negatives below, counted over all rows: take off those of earlier groups.
    below_V = np.cumsum(negative_V) - negative_V
    below_V = below_V - below_V[_starts(group_V)][group_V]
    concordant_U = np.bincount(group_V, positive_V * (below_V + negative_V / 2))
    positive_U = np.bincount(group_V, positive_V)
    negative_U = np.bincount(group_V, negative_V)
    both_U = (positive_U > 0) & (negative_U > 0)
    if not both_U.any():
        return {"gauc_groups": 0.0}
    auc_U = concordant_U[both_U] / (positive_U[both_U] * negative_U[both_U])
    rows_U = positive_U[both_U] + negative_U[both_U]
    return {
        "gauc": float(np.average(auc_U, weights=rows_U)),
        "gauc_groups": float(both_U.sum()),
    }


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
    return _bin(_Ties.of(label_B, prediction_B), bins)


@final
@dataclass(frozen=True)
class _Ties:
    """Rows summed up by distinct prediction, ascending: all that ranks depend on."""

    prediction_V: Float[np.ndarray, " values"]
    rows_V: Float[np.ndarray, " values"]
    label_V: Float[np.ndarray, " values"]
    square_V: Float[np.ndarray, " values"]

    @classmethod
    def of(
        cls,
        label_B: Float[np.ndarray, " batch"],
        prediction_B: Float[np.ndarray, " batch"],
    ) -> "_Ties":
        order_B = np.argsort(prediction_B, kind="stable")
        prediction_B, label_B = prediction_B[order_B], label_B[order_B]
        starts_V = _starts(prediction_B)
        return cls(
            prediction_B[starts_V].astype(np.float64),
            np.diff(starts_V, append=len(label_B)).astype(np.float64),
            _sums(label_B, starts_V),
            _sums(label_B.astype(np.float64) ** 2, starts_V),
        )


def _starts(*sorted_columns_B: Shaped[np.ndarray, " batch"]) -> Int[np.ndarray, " v"]:
    """First row of every run of rows that are equal in all columns."""
    new_B = np.zeros(len(sorted_columns_B[0]), dtype=bool)
    new_B[:1] = True
    for column_B in sorted_columns_B:
        new_B[1:] |= column_B[1:] != column_B[:-1]
    return np.flatnonzero(new_B)


def _sums(
    value_B: Float[np.ndarray, " batch"], starts_V: Int[np.ndarray, " values"]
) -> Float[np.ndarray, " values"]:
    if not len(starts_V):
        return np.zeros(0)
    return np.add.reduceat(value_B.astype(np.float64), starts_V)


def _auc_with_interval(ties: _Ties) -> dict[str, float]:
    """AUC = P(positive above negative) + P(equal)/2, with DeLong's interval.

    The variance adds that of each positive's share of negatives below it and of each
    negative's share of positives above it; both follow from counts below, so one sort
    does for all. The interval is taken on the logit scale, so it stays within 0 and 1.

    Deviations:
        - Classes that are perfectly apart have variance 0 and so an empty interval.
          Here the end is exact instead: ``k = min(positives, negatives)`` disjoint
          pairs in order have a probability of at most ``AUC^k``, so an AUC below
          ``0.025^(1/k)`` is refuted.
        - One row of a class has no variance: no interval.

    References:
        DeLong et al., "Comparing the Areas under Two or More Correlated ROC Curves",
        Biometrics 1988, doi:10.2307/2531595.
        Sun and Xu, "Fast Implementation of DeLong's Algorithm", IEEE Signal Processing
        Letters 2014, doi:10.1109/LSP.2014.2337313.
    """
    positive_V = ties.label_V
    negative_V = ties.rows_V - positive_V
    positives, negatives = positive_V.sum(), negative_V.sum()
    if positives == 0 or negatives == 0:
        return {}
    below_V = (np.cumsum(negative_V) - negative_V / 2) / negatives
    above_V = 1 - (np.cumsum(positive_V) - positive_V / 2) / positives
    # In pairs, halves of a whole number: exact up to 2^52, so 0 and 1 are exact too.
    below_pairs_V = np.cumsum(negative_V) - negative_V / 2
    auc = float((positive_V * below_pairs_V).sum() / (positives * negatives))
    if auc in (0.0, 1.0):
        bound = float(0.025 ** (1 / min(positives, negatives)))
        low, high = (bound, 1.0) if auc == 1.0 else (0.0, 1.0 - bound)
        return {"auc": auc, "auc_low": low, "auc_high": high}
    if positives == 1 or negatives == 1:
        return {"auc": auc}
    variance = (positive_V * (below_V - auc) ** 2).sum() / (
        positives * (positives - 1)
    ) + (negative_V * (above_V - auc) ** 2).sum() / (negatives * (negatives - 1))
    half = _Z * np.sqrt(variance) / (auc * (1 - auc))
    low, high = expit(logit(auc) - half), expit(logit(auc) + half)
    return {"auc": auc, "auc_low": float(low), "auc_high": float(high)}


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


def _bin(ties: _Ties, bins: int) -> CalibrationTable:
    total = ties.rows_V.sum()
    middle_V = np.cumsum(ties.rows_V) - ties.rows_V / 2
    # By middle rank: equal predictions fall together, whatever the order of rows.
    bin_V = np.minimum(middle_V * bins / max(total, 1), bins - 1).astype(np.int64)
    starts = _starts(bin_V)
    rows = _sums(ties.rows_V, starts)
    prediction = _sums(ties.prediction_V * ties.rows_V, starts) / rows
    label = _sums(ties.label_V, starts) / rows
    square = _sums(ties.square_V, starts) / rows
    if np.array_equal(ties.square_V, ties.label_V):  # labels are 0 and 1
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
