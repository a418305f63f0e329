"""Task specs -> heads."""

from typing import Literal, assert_never

from recsys_mtl.config.task import (
    BinaryTask,
    OrdinalTask,
    SurvivalTask,
    TaskSpec,
    ValueTask,
)
from recsys_mtl.errors import ConfigError
from recsys_mtl.features.manifest import TaskStats
from recsys_mtl.model.heads import (
    AbstractHead,
    BinaryHead,
    LogNormalHead,
    OrdinalHead,
    SquaredHead,
    SurvivalHead,
    ZeroInflatedLogNormalHead,
)

__all__ = ["build_head"]


def build_head(task: TaskSpec, stats: TaskStats) -> AbstractHead:
    """Build the head of a task's kind of label, to start at its training labels.

    Raises:
        ConfigError: A horizon of a survival task is after its last bin.
    """
    match task:
        case BinaryTask():
            return BinaryHead(base_rate=stats.mean)
        case ValueTask(loss=loss):
            return _value_head(loss, stats)
        case OrdinalTask():
            return OrdinalHead(stats.level_rows, task.names)
        case SurvivalTask(horizons=horizons):
            try:
                return SurvivalHead(stats.edges, stats.hazards, horizons)
            except ConfigError as error:
                raise ConfigError(f"task {task.name!r}: {error}") from error
        case _:
            assert_never(task)


def _value_head(
    loss: Literal["log_normal", "squared", "zero_inflated_log_normal"],
    stats: TaskStats,
) -> AbstractHead:
    match loss:
        case "log_normal":
            return LogNormalHead(log_mean=stats.log_mean, log_std=stats.log_std)
        case "squared":
            return SquaredHead(mean=stats.mean)
        case "zero_inflated_log_normal":
            return ZeroInflatedLogNormalHead(
                positive_rate=stats.positives / max(stats.rows, 1),
                log_mean=stats.positive_log_mean,
                log_std=stats.positive_log_std,
            )
        case _:
            assert_never(loss)
