"""Which rows of a stack of tables an encoded column reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from recsys_mtl.data.batch import EncodedRows
from recsys_mtl.model.embeddings.batch_embedding import BatchEmbedding
from recsys_mtl.model.embeddings.context import ContextEmbedding
from recsys_mtl.model.embeddings.pooling import sum_events
from recsys_mtl.model.embeddings.table_rows import FloatRows

__all__ = ["SideColumns", "TableStack", "stacks_of"]

_Places = npt.NDArray[np.int64]


@final
@dataclass(frozen=True)
class TableStack:
    """Tables of one width, one after the other in the order of their names.

    Attributes:
        name: ``fields``, or ``contexts.0`` and so on for those of the tower's own.
        spans: By name in the network's ``state_dict``, first row and end of a table.
        start: By encoded column, the row of its id 0.
        dim: Width of a row.
    """

    name: str
    spans: Mapping[str, tuple[int, int]]
    start: Mapping[str, int]
    dim: int

    @property
    def num_rows(self) -> int:
        """Rows of all tables."""
        return max((stop for _, stop in self.spans.values()), default=0)

    def rows(self, state: Mapping[str, Tensor]) -> FloatRows:
        """Give the tables of a ``state_dict`` as one.

        Weights mapped from a safetensors file lie there in this order, so that nothing
        is copied, and processes go on sharing pages.
        """
        tables = [state[name] for name in self.spans]
        if not tables:
            return FloatRows(torch.zeros(0, self.dim))
        first = tables[0]
        place = first.data_ptr()
        for table in tables:
            if table.data_ptr() != place or not _one_file(table, first):
                return FloatRows(torch.cat(tables))
            place += table.nbytes
        shape, stride = (self.num_rows, self.dim), (self.dim, 1)
        return FloatRows(first.detach().as_strided(shape, stride))

    def event_places(self, rows: EncodedRows, columns: Sequence[str]) -> _Places:
        """Place of each value of the list columns of one history.

        Shape:
            - return: ``(events, columns)``
        """
        values = rows.values(columns)
        place_EK = np.empty((len(values[0]), len(columns)), np.int64)
        # Copied first: ids may be of a small type, which could not hold a place.
        for k, ids in enumerate(values):
            place_EK[:, k] = ids
        place_EK += [self.start[column] for column in columns]
        return place_EK


@final
class SideColumns:
    """Columns of a stack that lie on one side of a ``RequestBatch``.

    Args:
        stack: Has the tables.
        columns: In any order.
        lists: Those columns of the schema that hold lists.

    Attributes:
        columns: In the order in which ``vectors`` gives them.
    """

    def __init__(
        self, stack: TableStack, columns: Sequence[str], lists: frozenset[str]
    ) -> None:
        self._singles = [column for column in columns if column not in lists]
        self._lists = [column for column in columns if column in lists]
        self.columns = (*self._singles, *self._lists)
        self._stack = stack
        self._starts = np.array([stack.start[c] for c in self._singles], np.int64)

    def places(self, rows: EncodedRows) -> list[_Places]:
        """Places of what ``vectors`` reads: single columns, then a list each.

        Shape:
            - return: ``(rows, single columns)``, then ``(values,)`` of each list
        """
        start = self._stack.start
        place_NF = np.empty((rows.num_rows, len(self._singles)), dtype=np.int64)
        for f, column in enumerate(self._singles):
            place_NF[:, f] = rows.ids[column]
        place_NF += self._starts
        values = rows.values(self._lists)
        return [
            place_NF,
            *(
                ids + np.int64(start[column])
                for column, ids in zip(self._lists, values, strict=True)
            ),
        ]

    def vectors(
        self, rows: EncodedRows, found: Sequence[Tensor]
    ) -> Float[Tensor, "rows columns dim"]:
        """Give one vector a column; of a list the mean, 0 for an empty one.

        Args:
            rows: Whose.
            found: What lies at each of ``places(rows)``.
        """
        blocks = [found[0]]
        for column, value_XD in zip(self._lists, found[1:], strict=True):
            length_N = lengths_of(rows, column)
            mean_N1D = sum_events(value_XD[:, None], length_N)
            blocks.append(mean_N1D / length_N.clamp(min=1)[:, None, None])
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def lengths_of(rows: EncodedRows, column: str) -> Int[Tensor, " rows"]:
    """Give how many values each row of a list column has."""
    return torch.from_numpy(rows.lengths[column].astype(np.int64))


def stacks_of(embedding: BatchEmbedding) -> tuple[TableStack, ...]:
    """Stack the tables of the fields, then those of each context."""
    contexts = list(embedding.contexts.children())
    found = [_stack("fields", "embedding", embedding, embedding.dim)]
    for number, context in enumerate(contexts):
        assert isinstance(context, ContextEmbedding)
        name = f"contexts.{number}"
        found.append(_stack(name, f"embedding.{name}", context, context.dim))
    return tuple(found)


def _stack(
    name: str, path: str, holder: BatchEmbedding | ContextEmbedding, dim: int
) -> TableStack:
    tables_of: dict[str, tuple[int, list[str]]] = {}
    for part, tables in (("pooled", "embedding_bags"), ("sequence", "embeddings")):
        collection = getattr(holder, part)
        if collection is None:
            continue
        configs = (
            collection.embedding_bag_configs()
            if part == "pooled"
            else collection.embedding_configs()
        )
        assert isinstance(getattr(collection, tables), nn.ModuleDict)
        for config in configs:
            name_in_state = f"{path}.{part}.{tables}.{config.name}.weight"
            tables_of[name_in_state] = config.num_embeddings, config.feature_names
    spans: dict[str, tuple[int, int]] = {}
    start: dict[str, int] = {}
    end = 0
    for table in sorted(tables_of):
        size, columns = tables_of[table]
        spans[table] = end, end + size
        start |= dict.fromkeys(columns, end)
        end += size
    return TableStack(name, spans, start, dim)


def _one_file(table: Tensor, first: Tensor) -> bool:
    one, other = table.untyped_storage(), first.untyped_storage()
    return one.data_ptr() == other.data_ptr() and table.is_contiguous()
