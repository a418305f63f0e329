"""Sums over a task's labels that add up over blocks."""

import math
from dataclasses import dataclass, field
from typing import final

import numpy as np
import pyarrow as pa

from recsys_mtl.config.task import OrdinalTask, SurvivalTask, TaskSpec
from recsys_mtl.errors import DataError
from recsys_mtl.features.encoders.quantile import QuantileFit
from recsys_mtl.features.life_table import bin_hazards, event_quantiles
from recsys_mtl.features.manifest import TaskStats

__all__ = ["LabelSum"]


@final
@dataclass
class LabelSum:
    """What a block of labels adds to ``TaskStats``.

    Attributes:
        detailed: Whether to count every distinct label, as levels and times need.

    Example:
        >>> label = LabelSum()
        >>> label.update(pa.chunked_array([[0.0, None, 1.0]]))
        >>> label.stats().positives, label.stats().mean
        (1, 0.5)
    """

    detailed: bool = False
    rows: int = 0
    positives: int = 0
    total: float = 0.0
    log_total: float = 0.0
    log_squares: float = 0.0
    positive_logs: float = 0.0
    positive_log_squares: float = 0.0
    weights: int = 0
    weight_total: float = 0.0
    events: QuantileFit = field(default_factory=QuantileFit)
    others: QuantileFit = field(default_factory=QuantileFit)

    @classmethod
    def of(cls, task: TaskSpec) -> "LabelSum":
        """Begin the sums of a task's labels."""
        return cls(detailed=isinstance(task, OrdinalTask | SurvivalTask))

    def update(
        self, label_B: pa.ChunkedArray, weight_B: pa.ChunkedArray | None = None
    ) -> None:
        """Add rows; null is no label."""
        known = label_B.drop_null().to_numpy().astype(np.float64)
        event = ~np.signbit(known)
        time = np.abs(known)
        logs = np.log1p(time)
        above = known > 0
        positive_logs = np.log(known[above])
        self.rows += len(known)
        self.positives += int(above.sum())
        self.total += float(time.sum())
        self.log_total += float(logs.sum())
        self.log_squares += float(np.square(logs).sum())
        self.positive_logs += float(positive_logs.sum())
        self.positive_log_squares += float(np.square(positive_logs).sum())
        if self.detailed:
            self.events.update(pa.array(time[event]))
            self.others.update(pa.array(time[~event]))
        if weight_B is not None:
            given = weight_B.drop_null().to_numpy().astype(np.float64)
            self.weights += len(given)
            self.weight_total += float(given.sum())

    def merge(self, other: "LabelSum") -> None:
        """Add another block."""
        self.rows += other.rows
        self.positives += other.positives
        self.total += other.total
        self.log_total += other.log_total
        self.log_squares += other.log_squares
        self.positive_logs += other.positive_logs
        self.positive_log_squares += other.positive_log_squares
        self.weights += other.weights
        self.weight_total += other.weight_total
        self.events.merge(other.events)
        self.others.merge(other.others)

    def stats(
        self, task: TaskSpec | None = None, *, training: bool = False
    ) -> TaskStats:
        """What the sums say.

        Args:
            task: Whose labels they are; tells what its kind has besides.
            training: Whether they are those that a network starts at.

        Raises:
            DataError: Bins are to be cut, and there was no event; or all row weights
                are 0.
        """
        rows, positives = max(self.rows, 1), max(self.positives, 1)
        log_mean = self.log_total / rows
        positive_log_mean = self.positive_logs / positives
        stats = TaskStats(
            rows=self.rows,
            positives=self.positives,
            mean=self.total / rows,
            log_mean=log_mean,
            log_std=_deviation(self.log_squares / rows, log_mean),
            positive_log_mean=positive_log_mean,
            positive_log_std=_deviation(
                self.positive_log_squares / positives, positive_log_mean
            ),
        )
        if task is None:
            return stats
        return stats.model_copy(update=self._more(task, training))

    def _more(self, task: TaskSpec, training: bool) -> dict[str, object]:
        """What only tasks of some kinds have."""
        more: dict[str, object] = {}
        if task.row_weight is not None:
            if training and self.rows and not self.weight_total > 0:
                raise DataError(
                    f"row weights of task {task.name!r} must be above 0 somewhere, got "
                    f"none in {self.rows:,} training rows of column "
                    f"{task.row_weight.column!r}; correct the column or leave "
                    "row_weight out"
                )
            more["weight_mean"] = self.weight_total / max(self.weights, 1)
            more["missing_weights"] = self.rows - self.weights
        match task:
            case OrdinalTask():
                level, count = self.events.table()
                rows = np.zeros(len(task.names), dtype=np.int64)
                rows[level.astype(np.int64)] = count
                more["level_rows"] = tuple(rows.tolist())
            case SurvivalTask():
                more["positives"] = int(self.events.table()[1].sum())
                if training:
                    more["edges"] = edges = self._edges(task)
                    more["hazards"] = self._hazards(edges)
        return more

    def _edges(self, task: SurvivalTask) -> tuple[float, ...]:
        if isinstance(task.bins, tuple):
            return task.bins
        edges = event_quantiles(*self.events.table(), task.bins)
        if not edges:
            raise DataError(
                f"survival task {task.name!r} must have events after time 0 in the "
                f"training rows to cut {task.bins} bins at, got none in {self.rows:,} "
                "rows; correct its event and time, or give the edges of bins"
            )
        return edges

    def _hazards(self, edges: tuple[float, ...]) -> tuple[float, ...]:
        (seen, events), (lost, censored) = self.events.table(), self.others.table()
        return bin_hazards(
            edges,
            np.concatenate([seen, lost]),
            np.concatenate([events, 0 * censored]),
            np.concatenate([0 * events, censored]),
        )


def _deviation(mean_square: float, mean: float) -> float:
    return math.sqrt(max(mean_square - mean**2, 0.0))
