"""How often something happened before, as two numbers."""

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import pyarrow as pa

from recsys_mtl.features.column import filled
from recsys_mtl.features.schema import Artifact

__all__ = ["Aggregate", "AggregateFit", "RatesOf"]

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
        return self._rates.evidence(_filled(rows))

    def rates(self, rows: pa.Array, hits: pa.Array) -> np.ndarray:
        """Log-odds of the share of hits, drawn towards the mean, above the mean's.

        0 where nothing is known, and of one scale for common and for rare hits.

        Shape:
            - rows, hits, return: ``(rows,)``; ``float32``
        """
        return self._rates.log_odds(_filled(rows), _filled(hits))

    @cached_property
    def _rates(self) -> "RatesOf":
        return RatesOf(mean=self.mean, prior_rows=self.prior_rows)


@final
class RatesOf:
    """What ``Aggregate`` tells, of one or of several aggregates at once.

    Args:
        mean: Of each, as ``Aggregate.mean``.
        prior_rows: Of each.

    Shape:
        - mean, prior_rows: anything that broadcasts with counts and hits
    """

    def __init__(
        self, *, mean: float | np.ndarray, prior_rows: float | np.ndarray
    ) -> None:
        # A mean of 0 or 1 has no log-odds.
        share = np.clip(mean, _LEAST_MEAN, 1.0 - _LEAST_MEAN)
        self._yes = prior_rows * share
        self._no = prior_rows * (1.0 - share)
        self._mean_log_odds = np.log(share / (1.0 - share))
        self._unit = np.log1p(prior_rows)

    def evidence(self, count: np.ndarray) -> np.ndarray:
        """As ``Aggregate.counts``, of numbers that are all there and not negative.

        Shape:
            - return: ``float32``
        """
        found: np.ndarray = (np.log1p(count) / self._unit).astype(np.float32)
        return found

    def log_odds(self, count: np.ndarray, hits: np.ndarray) -> np.ndarray:
        """As ``Aggregate.rates``, of numbers that are all there and not negative.

        Shape:
            - return: ``float32``
        """
        hits = np.minimum(hits, count)
        odds = (hits + self._yes) / (count - hits + self._no)
        rates: np.ndarray = (np.log(odds) - self._mean_log_odds).astype(np.float32)
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
