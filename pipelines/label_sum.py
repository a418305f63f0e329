"""Sums over a task's labels that add up over blocks."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa

from recsys_mtl.features.manifest import TaskStats

__all__ = ["LabelSum"]


@final
@dataclass
class LabelSum:
    """What a block of labels adds to ``TaskStats``.

    Example:
        >>> label = LabelSum()
        >>> label.update(pa.chunked_array([[0.0, None, 1.0]]))
        >>> label.stats().positives, label.stats().mean
        (1, 0.5)
    """

    rows: int = 0
    positives: int = 0
    total: float = 0.0
    log_total: float = 0.0
    log_squares: float = 0.0

    def update(self, label_B: pa.ChunkedArray) -> None:
        """Add rows; null is no label."""
        known = label_B.drop_null().to_numpy().astype(np.float64)
        logs = np.log1p(known)
        self.rows += len(known)
        self.positives += int((known > 0).sum())
        self.total += float(known.sum())
        self.log_total += float(logs.sum())
        self.log_squares += float(np.square(logs).sum())

    def merge(self, other: "LabelSum") -> None:
        """Add another block."""
        self.rows += other.rows
        self.positives += other.positives
        self.total += other.total
        self.log_total += other.log_total
        self.log_squares += other.log_squares

    def stats(self) -> TaskStats:
        """What the sums say."""
        rows = max(self.rows, 1)
        log_mean = self.log_total / rows
        return TaskStats(
            rows=self.rows,
            positives=self.positives,
            mean=self.total / rows,
            log_mean=log_mean,
            log_std=math.sqrt(max(self.log_squares / rows - log_mean**2, 0.0)),
        )
