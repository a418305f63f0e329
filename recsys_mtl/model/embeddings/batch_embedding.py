"""A batch's ids become one vector a field."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchrec import JaggedTensor

from recsys_mtl.data.batch import Batch
from recsys_mtl.model.embeddings.context import ContextEmbedding
from recsys_mtl.model.embeddings.history import EventSequence, HistoryEmbedding
from recsys_mtl.model.embeddings.lookup import arrived, single_events, stacked
from recsys_mtl.model.embeddings.number import LinearNumbers
from recsys_mtl.model.embeddings.table import (
    Table,
    pooled_collection,
    sequence_collection,
)

__all__ = ["BatchEmbedding", "Embedded"]


class Embedded(NamedTuple):
    """What the rest of the network reads.

    Attributes:
        fields_BFD: One vector a field: pooled columns, then candidates, then the
            fields of each history, then numbers that are fields.
        dense_BM: Numbers, as in the batch; none if they are fields.
        sequences: Events of each history, if the bottom pools them itself; such
            histories have no fields.
        contexts: Vectors from tables of the tower's own, if it has such.
        auxiliary: A loss of the embedding's own, 0 for none.
    """

    fields_BFD: Float[Tensor, "batch fields dim"]
    dense_BM: Float[Tensor, "batch dense"]
    sequences: tuple[EventSequence, ...]
    contexts: tuple[Float[Tensor, "batch _ _"], ...]
    auxiliary: Float[Tensor, ""]


@final
class BatchEmbedding(nn.Module):
    """Looks all ids of a batch up and pools lists and histories.

    Id 0, a missing value, and id 1, an unseen one, have rows like any other id, and
    are trained like any other: that a value is missing may tell something.

    The two collections are TorchRec's, so ``DistributedModelParallel`` finds and shards
    them wherever this module sits. What they then give arrives later and in another
    order; nothing is assumed of it but ``keys()``, ``values()`` and indexing.

    Args:
        dim: Width of every vector.
        pooled: Tables that no history reads, with the columns of ``Batch.pooled``.
        sequence: Tables that some history reads, with those of ``Batch.sequence``.
        candidates: Columns of ``Batch.sequence`` with exactly one id in a row.
        histories: Poolings over the other columns of ``Batch.sequence``.
        init_std: Standard deviation of the normal start.
        device: Where tables lie: ``meta`` for ``DistributedModelParallel``, which
            makes them, and the CPU otherwise.
        numbers: Makes numbers fields, if they are to be.
        contexts: Tables of the tower's own.

    Shape:
        - batch: B rows
        - return: ``fields_BFD`` of ``(batch, num_fields, dim)``, the dense numbers,
          events of histories without a pooling, and contexts
    """

    def __init__(
        self,
        dim: int,
        *,
        pooled: Sequence[Table],
        sequence: Sequence[Table],
        candidates: tuple[str, ...],
        histories: Sequence[HistoryEmbedding],
        init_std: float,
        device: torch.device,
        numbers: LinearNumbers | None = None,
        contexts: Sequence[ContextEmbedding] = (),
    ) -> None:
        super().__init__()
        self.dim = dim
        self.candidates = candidates
        self.histories = nn.ModuleList(histories)
        self.numbers = numbers
        self.contexts = nn.ModuleList(contexts)
        self.pooled_columns = [column for table in pooled for column in table.columns]
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
        events = sum(len(h.columns) for h in histories if h.pooling is not None)
        self.num_fields = len(self.pooled_columns) + len(candidates) + events
        if numbers is not None:
            self.num_fields += len(numbers.weight_MD)

    def forward(self, batch: Batch) -> Embedded:
        # All lookups start before any is waited for.
        pooled = None if self.pooled is None else self.pooled(batch.pooled)
        contexts = [c for c in self.contexts if isinstance(c, ContextEmbedding)]
        promises = [context.look_up(batch) for context in contexts]
        blocks: list[Tensor] = []
        sequences: list[EventSequence] = []
        losses: list[Tensor] = []
        if self.sequence is not None:
            vectors = arrived(self.sequence(batch.sequence))
            if self.candidates:
                rows = batch.num_rows
                blocks.append(single_events(vectors, self.candidates, rows))
            pooled_blocks, sequences, losses = self._histories(vectors, batch)
            blocks += pooled_blocks
        if pooled is not None:
            blocks.insert(0, stacked(arrived(pooled), self.pooled_columns, self.dim))
        dense_BM = batch.dense_BM
        if self.numbers is not None:
            blocks.append(self.numbers(dense_BM))
            dense_BM = dense_BM[:, :0]
        if not blocks:
            blocks = [dense_BM.new_empty(batch.num_rows, 0, self.dim)]
        fields_BFD = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)
        return Embedded(
            fields_BFD,
            dense_BM,
            tuple(sequences),
            tuple(
                context(promise, batch)
                for context, promise in zip(contexts, promises, strict=True)
            ),
            sum(losses, start=fields_BFD.new_zeros(())),
        )

    def _histories(
        self, vectors: Mapping[str, JaggedTensor], batch: Batch
    ) -> tuple[list[Tensor], list[EventSequence], list[Tensor]]:
        """Gather events; pool those that are pooled here, with their losses."""
        blocks: list[Tensor] = []
        sequences: list[EventSequence] = []
        losses: list[Tensor] = []
        for history in self.histories.children():
            assert isinstance(history, HistoryEmbedding)
            events = history.events(vectors)
            if history.pooling is None:
                sequences.append(events)
                continue
            blocks.append(history(events))
            if self.training:
                losses.append(history.auxiliary(events, batch.sequence))
        return blocks, sequences, losses
