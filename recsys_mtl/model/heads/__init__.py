"""Everything about one kind of label."""

from recsys_mtl.model.heads._base import AbstractHead
from recsys_mtl.model.heads.binary import BinaryHead
from recsys_mtl.model.heads.value import LogNormalHead, SquaredHead

__all__ = ["AbstractHead", "BinaryHead", "LogNormalHead", "SquaredHead"]
