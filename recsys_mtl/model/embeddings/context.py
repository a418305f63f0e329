"""Columns looked up once more, in tables that only a tower reads."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchrec import JaggedTensor, KeyedTensor

from recsys_mtl.data.batch import Batch
from recsys_mtl.model.embeddings.lookup import arrived, single_events, stacked
from recsys_mtl.model.embeddings.number import LinearNumbers
from recsys_mtl.model.embeddings.table import (
    Table,
    pooled_collection,
    sequence_collection,
)

__all__ = ["ContextEmbedding", "Promise"]


class Promise(NamedTuple):
    """Lookups under way.

    Attributes:
        pooled: What the pooled collection gave, or will.
        sequence: What the other collection gave, or will.
    """

    pooled: KeyedTensor | None
    sequence: Mapping[str, JaggedTensor] | None


@final
class ContextEmbedding(nn.Module):
    """Gives one vector a named column, from tables apart from those of the fields.

    Args:
        dim: Width of every vector.
        pooled: Tables over columns of ``Batch.pooled``.
        sequence: Tables over columns of ``Batch.sequence`` with one id in a row.
        numbers: Places in ``Batch.dense_BM``; each has a vector of its own.
        init_std: Standard deviation of the tables' normal start.
        device: Where tables lie, as for ``BatchEmbedding``.

    Shape:
        - promise: of ``look_up``
        - return: ``(batch, columns, dim)``: pooled columns, then those of one id, then
          numbers
    """

    def __init__(
        self,
        dim: int,
        *,
        pooled: Sequence[Table],
        sequence: Sequence[Table],
        numbers: tuple[int, ...],
        init_std: float,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.pooled_columns = [column for table in pooled for column in table.columns]
        self.candidates = tuple(c for table in sequence for c in table.columns)
        self.places = list(numbers)
        self.pooled = (
            pooled_collection(pooled, dim=dim, init_std=init_std, device=device)
            if pooled
            else None
        )
        self.sequence = (
            sequence_collection(sequence, dim=dim, init_std=init_std, device=device)
            if sequence
            else None
        )
        self.numbers = LinearNumbers(len(numbers), dim=dim) if numbers else None

    def look_up(self, batch: Batch) -> Promise:
        """Start the lookups, to be waited for later."""
        return Promise(
            None if self.pooled is None else self.pooled(batch.pooled),
            None if self.sequence is None else self.sequence(batch.sequence),
        )

    def forward(
        self, promise: Promise, batch: Batch
    ) -> Float[Tensor, "batch columns dim"]:
        blocks: list[Tensor] = []
        if promise.pooled is not None:
            blocks.append(
                stacked(arrived(promise.pooled), self.pooled_columns, self.dim)
            )
        if promise.sequence is not None:
            blocks.append(
                single_events(
                    arrived(promise.sequence), self.candidates, batch.num_rows
                )
            )
        if self.numbers is not None:
            blocks.append(self.numbers(batch.dense_BM[:, self.places]))
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)
