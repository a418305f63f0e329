"""Numbers cut at training quantiles."""

from dataclasses import dataclass, field
from typing import final

import numpy as np
import pyarrow as pa

from recsys_mtl.features.column import absent, filled
from recsys_mtl.features.encoders._base import AbstractIds
from recsys_mtl.features.schema import MISSING

__all__ = ["QuantileFit", "Quantiles"]


@final
@dataclass(frozen=True)
class Quantiles(AbstractIds):
    """Buckets between ascending cut points; a cut belongs to the bucket above it.

    Example:
        >>> Quantiles((1.0, 5.0)).ids(pa.array([0.0, 1.0, 7.0, None])).tolist()
        [2, 3, 4, 0]
    """

    cuts: tuple[float, ...]

    @property
    def size(self) -> int:
        return 2 + len(self.cuts) + 1

    def ids(self, values: pa.Array) -> np.ndarray:
        numbers = filled(values, 0.0)
        places = np.searchsorted(np.array(self.cuts), numbers, side="right")
        ids: np.ndarray = (places + 2).astype(np.int32)
        if values.null_count:
            ids[absent(values)] = MISSING
        return ids


@final
@dataclass
class QuantileFit:
    """How often each number occurs, in at most ``capacity`` distinct numbers.

    Exact while that suffices. Beyond, numbers lose low bits of their mantissa, as few
    as make them fit, and every row still counts. How many bits that is depends on the
    set of numbers alone, so the outcome is the same however rows are dealt to parts and
    in whatever order parts are merged; a sample would not have both.

    Example:
        >>> fit = QuantileFit()
        >>> fit.update(pa.array([1.0, 2.0, 3.0, 4.0]))
        >>> fit.finish(num_buckets=2).cuts
        (3.0,)
    """

    capacity: int = 65_536
    dropped_bits: int = 0
    _numbers: np.ndarray = field(default_factory=lambda: np.empty(0, np.float64))
    _counts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def update(self, values: pa.Array) -> None:
        """Count numbers; nulls do not count."""
        numbers = values.drop_null().to_numpy(zero_copy_only=False)
        self._add(numbers, np.ones(len(numbers), np.int64))

    def merge(self, other: "QuantileFit") -> None:
        """Add the counts of another part of the rows."""
        self.dropped_bits = max(self.dropped_bits, other.dropped_bits)
        self._add(other._numbers, other._counts)

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct numbers, ascending, and how often each occurred."""
        return self._numbers, self._counts

    def finish(self, num_buckets: int) -> Quantiles:
        """Cut so that buckets hold about equally many training rows.

        Numbers that occur very often take the place of several buckets, so there may
        be fewer than ``num_buckets``.
        """
        if len(self._numbers) == 0:
            return Quantiles(())
        upto = np.cumsum(self._counts)
        wanted = np.arange(1, num_buckets) / num_buckets * upto[-1]
        cuts = np.unique(self._numbers[np.searchsorted(upto, wanted, side="right")])
        # A cut at the least number would leave nothing below it.
        return Quantiles(tuple(cuts[cuts > self._numbers[0]].tolist()))

    def _add(self, numbers: np.ndarray, counts: np.ndarray) -> None:
        numbers = np.concatenate([self._numbers, numbers])
        counts = np.concatenate([self._counts, counts])
        if len(numbers) == 0:
            return
        numbers = _without_bits(numbers, self.dropped_bits)
        order = np.argsort(numbers, kind="stable")
        numbers, counts = _summed(numbers[order], counts[order])
        while len(numbers) > self.capacity:
            self.dropped_bits += 1
            # Losing bits moves numbers towards zero and never past each other.
            numbers, counts = _summed(_without_bits(numbers, self.dropped_bits), counts)
        self._numbers, self._counts = numbers, counts


def _summed(numbers: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct numbers of a sorted array, with the sum of their counts."""
    first = np.flatnonzero(np.concatenate([[True], numbers[1:] != numbers[:-1]]))
    return numbers[first], np.add.reduceat(counts, first)


def _without_bits(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Numbers with the lowest ``bits`` of their binary form set to zero."""
    mask = np.uint64(0xFFFFFFFFFFFFFFFF) << np.uint64(bits)
    kept: np.ndarray = ((numbers + 0.0).view(np.uint64) & mask).view(np.float64)
    return kept + 0.0  # -0.0 becomes 0.0
