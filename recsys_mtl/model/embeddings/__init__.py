"""Ids become vectors.

Takes a ``Batch``; gives ``Embedded``: one vector a field and the dense numbers. Must
not know tasks, specs or how tables are sharded.
"""

from recsys_mtl.model.embeddings.batch_embedding import BatchEmbedding, Embedded
from recsys_mtl.model.embeddings.context import ContextEmbedding
from recsys_mtl.model.embeddings.history import EventSequence, HistoryEmbedding
from recsys_mtl.model.embeddings.number import LinearNumbers
from recsys_mtl.model.embeddings.table import Table

__all__ = [
    "BatchEmbedding",
    "ContextEmbedding",
    "Embedded",
    "EventSequence",
    "HistoryEmbedding",
    "LinearNumbers",
    "Table",
]
