"""Task specs -> heads."""

from typing import Literal, assert_never

from recsys_mtl.config.task import BinaryTask, TaskSpec, ValueTask
from recsys_mtl.features.manifest import TaskStats
from recsys_mtl.model.heads import (
    AbstractHead,
    BinaryHead,
    LogNormalHead,
    SquaredHead,
)

__all__ = ["build_head"]


def build_head(task: TaskSpec, stats: TaskStats) -> AbstractHead:
    """Build the head of a task's kind of label, to start at its training labels."""
    match task:
        case BinaryTask():
            return BinaryHead(base_rate=stats.mean)
        case ValueTask(loss=loss):
            return _value_head(loss, stats)
        case _:
            assert_never(task)


def _value_head(
    loss: Literal["log_normal", "squared"], stats: TaskStats
) -> AbstractHead:
    match loss:
        case "log_normal":
            return LogNormalHead(log_mean=stats.log_mean, log_std=stats.log_std)
        case "squared":
            return SquaredHead(mean=stats.mean)
        case _:
            assert_never(loss)
