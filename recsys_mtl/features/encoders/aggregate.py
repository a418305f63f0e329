"""How often something happened before, as two numbers."""

from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa

from recsys_mtl.features.column import filled
from recsys_mtl.features.schema import Artifact

__all__ = ["Aggregate", "AggregateFit", "evidence", "log_odds"]

_LEAST_MEAN = 1e-6


@final
class Aggregate(Artifact):
    """Evidence ``log(1 + n) / log(1 + prior_rows)`` and the log-odds of hits.

    The log-odds are those of ``(hits + prior_rows * mean) / (n + prior_rows)`` less
    those of ``mean``.

    Attributes:
        prior_rows: How many rows of the training mean are added.
        mean: Share of the training rows for which the condition holds.

    Example:
        >>> about = Aggregate(prior_rows=10.0, mean=0.5)
        >>> about.rates(pa.array([10.0, None]), pa.array([10.0, None])).round(3)
        array([1.099, 0.   ], dtype=float32)
    """

    prior_rows: float
    mean: float

    def counts(self, rows: pa.Array) -> np.ndarray:
        """Evidence: ``log(1 + rows)``, 1 at ``prior_rows``; null counts as none.

        Shape:
            - rows, return: ``(rows,)``; ``float32``
        """
        return evidence(_filled(rows), self.prior_rows)

    def rates(self, rows: pa.Array, hits: pa.Array) -> np.ndarray:
        """Log-odds of the share of hits, drawn towards the mean, above the mean's.

        0 where nothing is known, and of one scale for common and for rare hits.

        Shape:
            - rows, hits, return: ``(rows,)``; ``float32``
        """
        return log_odds(
            _filled(rows), _filled(hits), mean=self.mean, prior_rows=self.prior_rows
        )


def evidence(count: np.ndarray, prior_rows: float | np.ndarray) -> np.ndarray:
    """As ``Aggregate.counts``, of numbers that are all there and not negative.

    Shape:
        - count, prior_rows, return: broadcast; ``float32``
    """
    logs = np.log1p(count) / np.log1p(prior_rows)
    found: np.ndarray = logs.astype(np.float32)
    return found


def log_odds(
    count: np.ndarray,
    hits: np.ndarray,
    *,
    mean: float | np.ndarray,
    prior_rows: float | np.ndarray,
) -> np.ndarray:
    """As ``Aggregate.rates``, of numbers that are all there and not negative.

    Shape:
        - count, hits, mean, prior_rows, return: broadcast; ``float32``
    """
    hits = np.minimum(hits, count)
    # A mean of 0 or 1 has no log-odds.
    share = np.clip(mean, _LEAST_MEAN, 1.0 - _LEAST_MEAN)
    yes = hits + prior_rows * share
    no = count - hits + prior_rows * (1.0 - share)
    found = np.log(yes / no) - np.log(share / (1.0 - share))
    rates: np.ndarray = found.astype(np.float32)
    return rates


@final
@dataclass
class AggregateFit:
    """Counts training rows and hits."""

    rows: int = 0
    hits: int = 0

    def update(self, rows: int, hits: int) -> None:
        """Add rows of which ``hits`` are hits."""
        self.rows += rows
        self.hits += hits

    def merge(self, other: "AggregateFit") -> None:
        """Add the counts of another part of the rows."""
        self.update(other.rows, other.hits)

    def finish(self, prior_rows: float) -> Aggregate:
        """Fix the mean."""
        mean = self.hits / self.rows if self.rows else 0.0
        return Aggregate(prior_rows=prior_rows, mean=mean)


def _filled(numbers: pa.Array) -> np.ndarray:
    # A request could say -1, of which there is no logarithm.
    numbers_B: np.ndarray = np.maximum(filled(numbers, 0.0), 0.0)
    return numbers_B
