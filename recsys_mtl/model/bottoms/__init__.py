"""What each task reads of the embedded row."""

from recsys_mtl.model.bottoms._base import AbstractBottom
from recsys_mtl.model.bottoms.apem import APEM
from recsys_mtl.model.bottoms.dtrn import DTRN, EventHistory, TaskInterest
from recsys_mtl.model.bottoms.flat import FlatBottom
from recsys_mtl.model.bottoms.task_encoder import TaskEncoder

__all__ = [
    "APEM",
    "DTRN",
    "AbstractBottom",
    "EventHistory",
    "FlatBottom",
    "TaskEncoder",
    "TaskInterest",
]
