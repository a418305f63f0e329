"""What a feature-table folder says of itself."""

from recsys_mtl.features.schema import Artifact

__all__ = ["TaskStats"]


class TaskStats(Artifact):
    """A task's labels in one split.

    Attributes:
        rows: Rows on which the task exists.
        positives: Rows with a label above 0.
        mean: Mean label; 0 without rows.
        log_mean: Mean of ``log(1 + label)``.
        log_std: Standard deviation of ``log(1 + label)``.
    """

    rows: int
    positives: int
    mean: float
    log_mean: float
    log_std: float
