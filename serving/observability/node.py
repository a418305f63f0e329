"""Counts of all replicas of a node, through files that they share."""

import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import final

import psutil
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from serving.observability.family import FAMILIES, Family
from serving.observability.ledger import Histogram, Labels, Ledger, le_labels

__all__ = ["NodeFolder"]


_LES = {
    family.name: le_labels(family)
    for family in FAMILIES.values()
    if family.kind == "histogram"
}


@final
class NodeFolder:
    """Writes a ledger where the other replicas find it, and reads theirs.

    The files are those of ``prometheus_client``'s multiprocess mode, which adds them
    up. Counters of a replica that died stay, so that sums never fall; its gauges go.

    Args:
        folder: Of the server alone; made if need be.
        ledger: Of this replica.
    """

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ledger = ledger
        # Not by process id alone: the next process with that id would go on in the
        # file, and its first count would be a fall.
        own = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._counters = _File(folder / f"counter_{own}.db")
        self._histograms = _File(folder / f"histogram_{own}.db")
        self._histogram_states: dict[tuple[str, Labels], tuple[float, ...]] = {}
        self._gauges: dict[str, _File] = {}
        self._gauge_labels: dict[str, set[Labels]] = {}

    def write(self) -> None:
        """Write what has changed."""
        ledger = self._ledger
        for name, counts in ledger.counters.items():
            family = FAMILIES[name]
            for labels, number in counts.items():
                self._counters.write(family, name, labels, number)
        for name, histograms in ledger.histograms.items():
            for labels, histogram in histograms.items():
                self._write_histogram(FAMILIES[name], labels, histogram)
        self._write_gauges()

    def collect(self) -> Iterable[Metric]:
        """Add up all replicas as they wrote last; forget gauges of the dead."""
        self._forget_the_dead()
        told = MultiProcessCollector(  # type: ignore[no-untyped-call]
            None, str(self._folder)
        ).collect()
        by_name: dict[str, Metric] = {metric.name: metric for metric in told}
        for family in FAMILIES.values():
            metric = by_name.get(_base(family))
            if metric is not None:
                yield metric

    def close(self) -> None:
        """Take back the gauges: this replica is no more. Its counters stay."""
        self._counters.close()
        self._histograms.close()
        for file in self._gauges.values():
            file.remove()

    def _write_histogram(
        self, family: Family, labels: Labels, histogram: Histogram
    ) -> None:
        counts, total = histogram.counts.tolist(), float(histogram.total[0])
        state = (total, *counts)
        if self._histogram_states.get((family.name, labels)) == state:
            return
        self._histogram_states[family.name, labels] = state
        name, file = family.name, self._histograms
        file.write(family, f"{name}_sum", labels, total)
        for le, count in zip(_LES[name], counts, strict=True):
            file.write(family, f"{name}_bucket", labels, float(count), le)

    def _write_gauges(self) -> None:
        by_mode: dict[str, list[Family]] = {}
        for family in FAMILIES.values():
            if family.kind == "gauge":
                by_mode.setdefault(family.mode, []).append(family)
        for mode, families in by_mode.items():
            file = self._gauges.get(mode)
            labels_now = {
                (family.name, *labels)
                for family in families
                for labels in self._ledger.gauges[family.name]
            }
            if file is not None and not self._gauge_labels[mode] <= labels_now:
                # Entries cannot be taken out of a file.
                file.remove()
                file = None
            if file is None:
                path = self._folder / f"gauge_{mode}_{os.getpid()}.db"
                path.unlink(missing_ok=True)
                file = self._gauges[mode] = _File(path)
            self._gauge_labels[mode] = labels_now
            for family in families:
                for labels, number in self._ledger.gauges[family.name].items():
                    file.write(family, family.name, labels, number)

    def _forget_the_dead(self) -> None:
        for path in self._folder.glob("gauge_*.db"):
            pid = path.stem.rpartition("_")[2]
            if pid.isdigit() and not psutil.pid_exists(int(pid)):
                mark_process_dead(pid, str(self._folder))  # type: ignore[no-untyped-call]


class _File:
    """One file of numbers, of which only changed ones are written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = MmapedDict(str(path))  # type: ignore[no-untyped-call]
        self._written: dict[tuple[str, Labels, str], float] = {}

    def write(
        self, family: Family, name: str, labels: Labels, number: float, le: str = ""
    ) -> None:
        key = (name, labels, le)
        if self._written.get(key) == number:
            return
        self._written[key] = number
        names = [*family.labels, "le"] if le else list(family.labels)
        values = [*labels, le] if le else list(labels)
        written = mmap_key(_base(family), name, names, values, family.help)
        self._numbers.write_value(written, number, 0.0)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self._numbers.close()  # type: ignore[no-untyped-call]

    def remove(self) -> None:
        self.close()
        self._path.unlink(missing_ok=True)


def _base(family: Family) -> str:
    """Name as Prometheus' client keeps it: of counters without the ending."""
    return family.name.removesuffix("_total")
