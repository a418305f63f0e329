"""Ids become vectors.

Takes a ``Batch``; gives ``Embedded``: one vector a field and the dense numbers. Must
not know tasks, specs or how tables are sharded.
"""

from recsys_mtl.model.embeddings.batch_embedding import BatchEmbedding, Embedded
from recsys_mtl.model.embeddings.context import ContextEmbedding
from recsys_mtl.model.embeddings.history import EventSequence, HistoryEmbedding
from recsys_mtl.model.embeddings.number import LinearNumbers
from recsys_mtl.model.embeddings.request_embedding import (
    RequestEmbedded,
    RequestEmbedding,
)
from recsys_mtl.model.embeddings.table import Table
from recsys_mtl.model.embeddings.table_rows import (
    AbstractTableRows,
    ByteRows,
    FloatRows,
)
from recsys_mtl.model.embeddings.table_stack import TableStack, stacks_of

__all__ = [
    "AbstractTableRows",
    "BatchEmbedding",
    "ByteRows",
    "ContextEmbedding",
    "Embedded",
    "EventSequence",
    "FloatRows",
    "HistoryEmbedding",
    "LinearNumbers",
    "RequestEmbedded",
    "RequestEmbedding",
    "Table",
    "TableStack",
    "stacks_of",
]
