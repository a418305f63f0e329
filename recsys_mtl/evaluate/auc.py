"""The area under the ROC curve, its interval, and its mean within groups."""

import numpy as np
from jaxtyping import Float, Shaped

from recsys_mtl.evaluate.ties import Ties, starts, sums

__all__ = ["auc_with_interval", "grouped_auc"]

_Z = 1.959963984540054  # the normal distribution's 97.5 % point


def auc_with_interval(ties: Ties) -> dict[str, float]:
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
    positive_P = ties.label_P
    negative_P = ties.rows_P - positive_P
    positives, negatives = positive_P.sum(), negative_P.sum()
    if positives == 0 or negatives == 0:
        return {}
    below_P = (np.cumsum(negative_P) - negative_P / 2) / negatives
    above_P = 1 - (np.cumsum(positive_P) - positive_P / 2) / positives
    # In pairs, halves of a whole number: exact up to 2^52, so 0 and 1 are exact too.
    below_pairs_P = np.cumsum(negative_P) - negative_P / 2
    auc = float((positive_P * below_pairs_P).sum() / (positives * negatives))
    if auc in (0.0, 1.0):
        bound = float(0.025 ** (1 / min(positives, negatives)))
        low, high = (bound, 1.0) if auc == 1.0 else (0.0, 1.0 - bound)
        return {"auc": auc, "auc_low": low, "auc_high": high}
    if positives == 1 or negatives == 1:
        return {"auc": auc}
    variance = (positive_P * (below_P - auc) ** 2).sum() / (
        positives * (positives - 1)
    ) + (negative_P * (above_P - auc) ** 2).sum() / (negatives * (negatives - 1))
    half = _Z * np.sqrt(variance) / (auc * (1 - auc))
    logit = np.log(auc) - np.log1p(-auc)
    return {"auc": auc, "auc_low": _prob(logit - half), "auc_high": _prob(logit + half)}


def _prob(logit: float) -> float:
    """The logistic function; scipy's costs a training process 26 MB to import."""
    return float(np.exp(-np.logaddexp(0.0, -logit)))


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
    starts_P = starts(group_B, prediction_B)
    rows_P = np.diff(starts_P, append=len(group_B))
    positive_P = sums(label_B[order_B], starts_P)
    negative_P = rows_P - positive_P
    group_P = group_B[starts_P]
    # Negatives below, counted over all rows: take off those of earlier groups.
    below_P = np.cumsum(negative_P) - negative_P
    below_P = below_P - below_P[starts(group_P)][group_P]
    concordant_U = np.bincount(group_P, positive_P * (below_P + negative_P / 2))
    positive_U = np.bincount(group_P, positive_P)
    negative_U = np.bincount(group_P, negative_P)
    both_U = (positive_U > 0) & (negative_U > 0)
    if not both_U.any():
        return {"gauc_groups": 0.0}
    auc_U = concordant_U[both_U] / (positive_U[both_U] * negative_U[both_U])
    rows_U = positive_U[both_U] + negative_U[both_U]
    return {
        "gauc": float(np.average(auc_U, weights=rows_U)),
        "gauc_groups": float(both_U.sum()),
    }
