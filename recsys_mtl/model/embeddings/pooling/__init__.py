"""The events of a history become one vector a field."""

from recsys_mtl.model.embeddings.pooling._base import AbstractPooling
from recsys_mtl.model.embeddings.pooling.din import TargetAttention
from recsys_mtl.model.embeddings.pooling.mean import MeanPooling

__all__ = ["AbstractPooling", "MeanPooling", "TargetAttention"]
