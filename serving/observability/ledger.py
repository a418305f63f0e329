"""Counts of one replica, cheap enough to keep for every request."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
from jaxtyping import Float, Int
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from serving.observability.bins import FloatBins
from serving.observability.family import FAMILIES, Family

__all__ = ["Histogram", "Labels", "Ledger", "TaskHistograms", "le_labels"]

Labels = tuple[str, ...]


@final
class Histogram:
    """Counts by bin; a value that equals an edge is in the bin below it.

    Args:
        edges: Upper ends of the bins, ascending; a last bin takes what is beyond.

    Attributes:
        counts: Of each bin.
        total: Of all values: an array of one number, so that a row of a larger one can
            stand here.

    Example:
        >>> histogram = Histogram((1.0, 2.0))
        >>> histogram.observe(1.0)
        >>> histogram.counts
        array([1, 0, 0])
    """

    __slots__ = ("counts", "edges", "total")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self.counts: Int[np.ndarray, " bins"] = np.zeros(len(edges) + 1, np.int64)
        self.total: Float[np.ndarray, " one"] = np.zeros(1)

    def observe(self, value: float) -> None:
        """Count one value, not NaN."""
        self.counts[bisect_left(self.edges, value)] += 1
        self.total[0] += value


@final
class TaskHistograms:
    """One histogram a task, counted together.

    Args:
        histograms: Of the tasks, all with the same edges; they share memory with this
            from now on.
        bins: Of these edges.
    """

    def __init__(self, histograms: Sequence[Histogram], bins: FloatBins) -> None:
        self._bins = bins
        self._counts_TB = np.stack([histogram.counts for histogram in histograms])
        self._total_T1 = np.stack([histogram.total for histogram in histograms])
        for t, histogram in enumerate(histograms):
            histogram.counts, histogram.total = self._counts_TB[t], self._total_T1[t]

    def observe(
        self,
        value_NT: Float[np.ndarray, "values tasks"],
        total_T: Float[np.ndarray, " tasks"],
    ) -> None:
        """Count finite values of all tasks.

        Args:
            value_NT: Values.
            total_T: Their sums.

        Shape:
            - value_NT: ``(values, tasks)``, float32
            - total_T: ``(tasks,)``
        """
        self._counts_TB += self._bins.counts(value_NT)
        self._total_T1[:, 0] += total_T


@final
@dataclass(eq=False)
class Ledger:
    """All counts of a replica. Not for several threads: the event loop keeps it.

    Prometheus' own counters take a lock and, where several processes share a folder,
    write to a file at every step; these are plain numbers, which ``NodeFolder`` writes
    there once a second.

    Attributes:
        counters: By name, then by the values of the labels.
        gauges: Likewise; whoever tells the metrics sets them anew.
        histograms: Likewise.
    """

    counters: dict[str, dict[Labels, float]] = field(default_factory=dict)
    gauges: dict[str, dict[Labels, float]] = field(default_factory=dict)
    histograms: dict[str, dict[Labels, Histogram]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for family in FAMILIES.values():
            match family.kind:
                case "counter":
                    self.counters[family.name] = {}
                case "gauge":
                    self.gauges[family.name] = {}
                case "histogram":
                    self.histograms[family.name] = {}

    def add(self, name: str, *labels: str, by: float = 1.0) -> None:
        """Let a counter grow."""
        values = self.counters[name]
        values[labels] = values.get(labels, 0.0) + by

    def set(self, name: str, *labels: str, to: float) -> None:
        """Set a gauge."""
        self.gauges[name][labels] = to

    def observe(self, name: str, *labels: str, value: float) -> None:
        """Count a value in a histogram."""
        self.histogram(name, *labels).observe(value)

    def histogram(self, name: str, *labels: str) -> Histogram:
        """Find the histogram with these labels, or begin it."""
        of = self.histograms[name]
        found = of.get(labels)
        if found is None:
            found = of[labels] = Histogram(FAMILIES[name].edges)
        return found

    def clear_gauges(self) -> None:
        """Forget all gauges, for some may be about models that are gone."""
        for values in self.gauges.values():
            values.clear()

    def collect(self) -> Iterator[Metric]:
        """Give everything as Prometheus' client writes it."""
        for family in FAMILIES.values():
            yield self._collected(family)

    def _collected(self, family: Family) -> Metric:
        name, labels = family.name, family.labels
        match family.kind:
            case "counter":
                counter = CounterMetricFamily(name, family.help, labels=labels)
                for values, number in self.counters[name].items():
                    counter.add_metric(values, number)
                return counter
            case "gauge":
                gauge = GaugeMetricFamily(name, family.help, labels=labels)
                for values, number in self.gauges[name].items():
                    gauge.add_metric(values, number)
                return gauge
            case "histogram":
                told = HistogramMetricFamily(name, family.help, labels=labels)
                les = le_labels(family)
                for values, histogram in self.histograms[name].items():
                    upto = np.cumsum(histogram.counts).tolist()
                    buckets = list(zip(les, upto, strict=True))
                    told.add_metric(values, buckets, float(histogram.total[0]))
                return told


def le_labels(family: Family) -> list[str]:
    """Write the edges of a histogram as Prometheus' client does, infinity last."""
    return [*map(floatToGoString, family.edges), "+Inf"]
