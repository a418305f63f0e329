"""Times of events and of last sight -> bins, and the hazard of each."""

import numpy as np
from jaxtyping import Float, Int

__all__ = ["bin_hazards", "event_quantiles"]


def event_quantiles(
    time_N: Float[np.ndarray, " times"], count_N: Int[np.ndarray, " times"], bins: int
) -> tuple[float, ...]:
    """Cut times of events into ``bins`` bins with about equally many events.

    Each bin reaches from above the edge before it to its own edge, the last one to the
    latest event. Times that occur very often may take the place of several bins.

    Args:
        time_N: Distinct times of events, ascending.
        count_N: How often each occurred.
        bins: How many bins.

    Returns:
        Upper edges, rising and above 0; none if no event came after time 0.

    Example:
        >>> event_quantiles(np.array([1.0, 2.0, 5.0, 9.0]), np.ones(4, int), 2)
        (2.0, 9.0)
    """
    if len(time_N) == 0:
        return ()
    upto_N = np.cumsum(count_N)
    wanted = np.arange(1, bins + 1) * upto_N[-1] / bins
    edges = np.unique(time_N[np.searchsorted(upto_N, wanted)])
    return tuple(edges[edges > 0].tolist())


def bin_hazards(
    edges: tuple[float, ...],
    time_N: Float[np.ndarray, " times"],
    events_N: Int[np.ndarray, " times"],
    censored_N: Int[np.ndarray, " times"],
) -> tuple[float, ...]:
    r"""Estimate the share of those who enter a bin whose event falls into it.

    :math:`h_j = d_j / (d_j + e_j)` with :math:`d_j` events in the bin and :math:`e_j`
    the sum, over all others who enter it, of the part of it that they were watched
    through. That is Kaplan and Meier's estimate on the edges where nobody is lost
    inside a bin, and the start at which ``SurvivalHead`` fits best.

    Args:
        edges: Upper edges of the bins, rising.
        time_N: Distinct times.
        events_N: Events at each.
        censored_N: Rows last seen at each without an event.

    Example:
        >>> two, one = np.array([1.0, 2.0]), np.array([1, 1])
        >>> bin_hazards((1.0, 2.0), two, one, 0 * one)
        (0.5, 1.0)
    """
    end_J = np.array(edges)
    start_J = np.concatenate([[0.0], end_J[:-1]])
    bin_N = np.searchsorted(end_J, time_N)
    inside_N = bin_N < len(edges)
    event_J = np.bincount(
        bin_N[inside_N], events_N[inside_N], minlength=len(edges)
    ).astype(np.float64)
    hazards = []
    # A loop over bins, not a matrix: there may be very many distinct times.
    for j, (start, end) in enumerate(zip(start_J, end_J, strict=True)):
        part_N = np.clip((time_N - start) / (end - start), 0.0, 1.0)
        # Whoever has the event in this bin or before does not live through it.
        alive_N = np.where(bin_N > j, events_N, 0) + censored_N
        exposure = float((part_N * alive_N).sum())
        total = event_J[j] + exposure
        hazards.append(float(event_J[j] / total) if total > 0 else 0.0)
    return tuple(hazards)
