"""How often of two rows the one that was predicted to last longer did."""

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["concordance"]

_Floats = Float[np.ndarray, " batch"]


def concordance(
    time_B: _Floats,
    event_B: Bool[np.ndarray, " batch"],
    prediction_B: _Floats,
    weight_B: _Floats | None = None,
) -> float | None:
    r"""Compute :math:`\sum w_i ([\hat t_i < \hat t_j] + \frac12 [\hat t_i = \hat t_j])
    / \sum w_i` over comparable pairs.

    Row i had its event while j was still watched: later than i, or censored at the same
    time. Two events at one time are no pair. All pairs are counted, in ``n log n``.

    Args:
        time_B: Of the event, or of last sight.
        event_B: Whether it was the event.
        prediction_B: Any number that rises with the predicted time.
        weight_B: Of each pair by its row i; 1 if left out.

    Returns:
        ``None`` where no pair can be compared.

    References:
        Harrell et al., "Evaluating the Yield of Medical Tests", JAMA 1982,
        doi:10.1001/jama.1982.03320430047030.

    Example:
        >>> time = np.array([1.0, 2.0, 3.0])
        >>> event = np.array([True, True, False])
        >>> concordance(time, event, np.array([0.1, 0.7, 0.5]))
        0.6666666666666666
    """  # noqa: D205 - the formula is the sentence
    # At one time events come first, so what a row is compared with is a suffix.
    order_B = np.lexsort((~event_B, time_B))
    time_B, event_B = time_B[order_B], event_B[order_B]
    rank_B = np.unique(prediction_B[order_B], return_inverse=True)[1]
    place_E = np.flatnonzero(event_B)
    # From the first row of the same time that is no event, or of the next time.
    last_event_B = np.maximum.accumulate(np.where(event_B, np.arange(len(time_B)), -1))
    end_E = np.searchsorted(time_B, time_B[place_E], side="right") - 1
    from_E = last_event_B[end_E] + 1
    pairs_E = len(time_B) - from_E
    weight_E = np.ones(len(place_E))
    if weight_B is not None:
        weight_E = weight_B[order_B][place_E]
    total = float((weight_E * pairs_E).sum())
    if total <= 0:
        return None
    upto_E, below_E = _ranked_below(
        rank_B, from_E, np.stack([rank_B[place_E] + 1, rank_B[place_E]])
    )
    above_E = pairs_E - upto_E
    tied_E = upto_E - below_E
    return float((weight_E * (above_E + tied_E / 2)).sum() / total)


def _ranked_below(
    rank_B: Int[np.ndarray, " batch"],
    from_E: Int[np.ndarray, " events"],
    bound_QE: Int[np.ndarray, "bounds events"],
) -> Int[np.ndarray, "bounds events"]:
    """Count rows from each place on whose rank is below each bound.

    A wavelet matrix: rows are sorted by one bit of their rank after another, and each
    question follows the rows that still may count.
    """
    rows = len(rank_B)
    first_QE = np.broadcast_to(from_E, bound_QE.shape).copy()
    after_QE = np.full(bound_QE.shape, rows)
    count_QE = np.zeros(bound_QE.shape, dtype=np.int64)
    for bit in range(int(bound_QE.max(initial=0)).bit_length() - 1, -1, -1):
        one_B = (rank_B >> bit) & 1 == 1
        zeros_B = np.concatenate([[0], np.cumsum(~one_B)])
        zero_first_QE, zero_after_QE = zeros_B[first_QE], zeros_B[after_QE]
        asks_one_QE = (bound_QE >> bit) & 1 == 1
        count_QE += np.where(asks_one_QE, zero_after_QE - zero_first_QE, 0)
        num_zeros = zeros_B[-1]
        first_QE = np.where(
            asks_one_QE, num_zeros + first_QE - zero_first_QE, zero_first_QE
        )
        after_QE = np.where(
            asks_one_QE, num_zeros + after_QE - zero_after_QE, zero_after_QE
        )
        rank_B = np.concatenate([rank_B[~one_B], rank_B[one_B]])
    return count_QE
