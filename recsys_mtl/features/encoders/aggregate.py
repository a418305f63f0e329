"""How often something happened before, as two numbers."""

from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa

from recsys_mtl.features.column import filled
from recsys_mtl.features.schema import Artifact

__all__ = ["Aggregate", "AggregateFit"]


@final
class Aggregate(Artifact):
    """``log(1 + n)`` and ``(hits + prior_rows * mean) / (n + prior_rows)``.

    Attributes:
        prior_rows: How many rows of the training mean are added.
        mean: Share of the training rows for which the condition holds.

    Example:
        >>> about = Aggregate(prior_rows=10.0, mean=0.5)
        >>> about.rates(pa.array([10.0, None]), pa.array([10.0, None])).tolist()
        [0.75, 0.5]
    """

    prior_rows: float
    mean: float

    def counts(self, rows: pa.Array) -> np.ndarray:
        """Logarithm of one plus the earlier rows; null counts as none.

        Shape:
            - rows, return: ``(rows,)``; ``float32``
        """
        logs: np.ndarray = np.log1p(_filled(rows)).astype(np.float32)
        return logs

    def rates(self, rows: pa.Array, hits: pa.Array) -> np.ndarray:
        """Share of hits among the earlier rows, drawn towards the mean.

        Shape:
            - rows, hits, return: ``(rows,)``; ``float32``
        """
        count = _filled(rows)
        hit = np.minimum(_filled(hits), count)
        rate = (hit + self.prior_rows * self.mean) / (count + self.prior_rows)
        rates: np.ndarray = rate.astype(np.float32)
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
