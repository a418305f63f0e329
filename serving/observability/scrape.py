"""What a server tells at /metrics, read back."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float
from prometheus_client.parser import text_string_to_metric_families

from recsys_mtl.errors import DataError

__all__ = ["Scrape", "quantile"]

Labels = tuple[tuple[str, str], ...]


@final
@dataclass(frozen=True)
class Scrape:
    """All numbers of a moment.

    Attributes:
        at: When, in seconds of any clock that does not jump.
        numbers: By name of the series, then by labels, sorted.
    """

    at: float
    numbers: Mapping[str, Mapping[Labels, float]]

    @classmethod
    def parse(cls, text: str, at: float) -> "Scrape":
        """Read Prometheus' text format.

        Raises:
            DataError: It is none, or not of such a server.
        """
        numbers: dict[str, dict[Labels, float]] = {}
        try:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    labels = tuple(sorted(sample.labels.items()))
                    numbers.setdefault(sample.name, {})[labels] = sample.value
        except (ValueError, IndexError, KeyError) as error:
            raise DataError(
                f"what was answered is not in Prometheus' text format: {error}"
            ) from error
        if "recsys_replicas" not in numbers:
            raise DataError(
                "what was answered has no recsys_replicas, so it is of no server of "
                "recsys-mtl"
            )
        return cls(at, numbers)

    def sum(self, name: str, **labels: str) -> float:
        """Add up the series with these labels, whatever others they have."""
        return sum(number for _, number in self.matching(name, **labels))

    def matching(
        self, name: str, **labels: str
    ) -> Iterator[tuple[dict[str, str], float]]:
        """Give the series with these labels."""
        wanted = set(labels.items())
        for given, number in self.numbers.get(name, {}).items():
            if wanted <= set(given):
                yield dict(given), number

    def values(self, name: str, label: str) -> list[str]:
        """Give the values of a label, sorted."""
        return sorted({told.get(label, "") for told, _ in self.matching(name)})

    def bins(
        self, name: str, **labels: str
    ) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
        """Add up histograms: upper ends of the bins, and how many are in each."""
        upto: dict[float, float] = {}
        for told, number in self.matching(f"{name}_bucket", **labels):
            edge = float(told["le"])
            upto[edge] = upto.get(edge, 0.0) + number
        edges = sorted(upto)
        counts = np.diff([0.0, *(upto[edge] for edge in edges)])
        return np.asarray(edges, dtype=np.float64), counts


def quantile(
    share: float,
    edges: Float[np.ndarray, " bins"],
    counts: Float[np.ndarray, " bins"],
) -> float:
    """Estimate a quantile as Prometheus does: evenly spread inside each bin.

    Args:
        share: From 0 to 1.
        edges: Upper ends of the bins, the last one infinite.
        counts: How many values are in each.

    Returns:
        NaN where there are no values; the last edge but infinity where it is beyond.

    Shape:
        - edges: ``(bins,)``
        - counts: ``(bins,)``

    Example:
        >>> quantile(0.5, np.array([1.0, 2.0, np.inf]), np.array([1.0, 2.0, 0.0]))
        1.25
    """
    total = float(counts.sum())
    if not total:
        return math.nan
    upto = np.cumsum(counts)
    place = int(np.searchsorted(upto, share * total))
    if place >= len(edges) - 1:
        return float(edges[-2])
    low = float(edges[place - 1]) if place else 0.0
    inside = (share * total - float(upto[place] - counts[place])) / float(counts[place])
    return low + (float(edges[place]) - low) * inside
