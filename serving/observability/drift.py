"""How far two windows of counts by bin are from each other."""

import numpy as np
from jaxtyping import Float

__all__ = ["stability_index"]


def stability_index(
    before: Float[np.ndarray, " bins"], after: Float[np.ndarray, " bins"]
) -> float:
    r"""Compute :math:`\sum_b (q_b - p_b) \ln (q_b / p_b)` of the bins' shares.

    Below .1 nothing happened that matters, above .25 something did. Every bin counts
    half a value more than it has, so that an empty one does not make it infinite;
    with few values chance alone gives about ``bins / values``.

    Args:
        before: Counts by bin, of one value or more.
        after: Counts by the same bins, of one value or more.

    Shape:
        - before: ``(bins,)``
        - after: ``(bins,)``

    References:
        Siddiqi, "Credit Risk Scorecards", Wiley 2006, section on monitoring.

    Example:
        >>> same = stability_index(np.array([50.0, 50.0]), np.array([500.0, 500.0]))
        >>> round(same, 6)
        0.0
        >>> stability_index(np.array([90.0, 10.0]), np.array([10.0, 90.0])) > 0.25
        True
    """
    used = (before + after) > 0
    p, q = before[used] + 0.5, after[used] + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())
