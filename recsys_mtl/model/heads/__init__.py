"""Everything about one kind of label."""

from recsys_mtl.model.heads._base import AbstractHead
from recsys_mtl.model.heads.binary import BinaryHead
from recsys_mtl.model.heads.ordinal import OrdinalHead
from recsys_mtl.model.heads.survival import SurvivalHead
from recsys_mtl.model.heads.value import LogNormalHead, SquaredHead
from recsys_mtl.model.heads.zero_inflated import ZeroInflatedLogNormalHead

__all__ = [
    "AbstractHead",
    "BinaryHead",
    "LogNormalHead",
    "OrdinalHead",
    "SquaredHead",
    "SurvivalHead",
    "ZeroInflatedLogNormalHead",
]
