"""How checks on validation data steer a run: what is best, how fast, when to stop."""

from collections.abc import Mapping
from typing import final

from recsys_mtl.config.train import EarlyStopping, PlateauSchedule, ScheduleSpec
from recsys_mtl.errors import DataError
from recsys_mtl.evaluate.metric import higher_is_better

__all__ = ["Schedule", "read_metric"]

Metrics = Mapping[str, Mapping[str, float]]


def read_metric(metric: str, metrics: Metrics) -> float:
    """Read ``TASK.METRIC``, or ``mean.METRIC`` over the tasks that have it.

    Raises:
        DataError: The metric is undefined on the rows measured.

    Example:
        >>> read_metric("mean.auc", {"a": {"auc": 0.5}, "b": {"auc": 1.0}, "c": {}})
        0.75
    """
    task, name = metric.split(".", 1)
    rows = metrics.values() if task == "mean" else [metrics.get(task, {})]
    values = [row[name] for row in rows if name in row]
    if not values:
        known = sorted({f"{t}.{n}" for t, row in metrics.items() for n in row})
        raise DataError(
            f"train.early_stopping.metric {metric!r} is undefined on the validation "
            f"rows (an AUC needs rows of both classes); defined are {', '.join(known)}"
        )
    return sum(values) / len(values)


@final
class Schedule:
    """Replays a run's checks, so its state needs no storing beside them.

    Args:
        warmup_steps: Steps over which learning rates rise linearly.
        spec: What a check without progress does to learning rates.
        stopping: Which metric tells progress, and how long to wait for it.
    """

    def __init__(
        self, warmup_steps: int, spec: ScheduleSpec, stopping: EarlyStopping
    ) -> None:
        self._warmup_steps = warmup_steps
        self._factor = spec.factor if isinstance(spec, PlateauSchedule) else 1.0
        self.floor = spec.floor if isinstance(spec, PlateauSchedule) else 0.0
        self._stopping = stopping
        name = stopping.metric.split(".", 1)[1]
        self._sign = 1.0 if higher_is_better(name) else -1.0
        self._best: float | None = None
        self._stale = 0
        self._scale = 1.0

    def observe(self, metrics: Metrics) -> bool:
        """Take a check's metrics; tell whether they are the best yet."""
        value = self._sign * read_metric(self._stopping.metric, metrics)
        if self._best is None or value > self._best + self._stopping.min_delta:
            self._best = value
            self._stale = 0
            return True
        self._stale += 1
        self._scale *= self._factor
        return False

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self._stale >= self._stopping.patience

    def factor(self, step: int) -> float:
        """Factor of all learning rates at ``step``, counted from 0."""
        if step >= self._warmup_steps:
            return self._scale
        return self._scale * (step + 1) / self._warmup_steps
