"""A network that computes once what the candidates of a request share."""

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from recsys_mtl.data.request_batch import RequestBatch, SchemaSplit
from recsys_mtl.model.bottoms.flat import FlatBottom
from recsys_mtl.model.chains import Logits
from recsys_mtl.model.embeddings import (
    AbstractTableRows,
    RequestEmbedding,
    stacks_of,
)
from recsys_mtl.model.network import Network, Trunk
from recsys_mtl.model.split_rows import SplitColumns, SplitRows

__all__ = ["RequestNetwork", "RequestTrunk", "TrunkInput"]

TrunkInput = tuple[Tensor, ...]
"""``shared_RU, own_NI, request_N`` behind a flat bottom, else ``x_NSD``; then one
``(N, columns, width)`` for each context."""


@final
class RequestTrunk(nn.Module):
    """What follows the bottom, as a function of plain tensors: it can be exported.

    Args:
        trunk: In evaluation mode.
        columns: Of split rows; ``None`` where the bottom needs whole rows, and so gives
            them.

    Shape:
        - inputs: as ``TrunkInput``
        - return: for each task ``(N, its logits)``
    """

    def __init__(self, trunk: Trunk, columns: SplitColumns | None) -> None:
        super().__init__()
        self.trunk = trunk
        self.columns = columns

    def forward(self, *inputs: Tensor) -> Logits:
        if self.columns is None:
            return self.trunk.after_bottom(inputs[0], inputs[1:])[0]
        shared_RU, own_NI, request_N, *contexts = inputs
        rows = SplitRows(self.columns, shared_RU, own_NI, request_N)
        return self.trunk.after_bottom(rows, tuple(contexts))[0]


@final
class RequestNetwork:
    """Scores a ``RequestBatch``, equal to the network on ``RequestBatch.joined()``.

    User and context fields are looked up once a request, histories are pooled once
    where the pooling does not read the candidate and otherwise share their keys, and
    the first layer behind a flat bottom multiplies what is shared once. Products split
    as far as a stage allows; see ``SplitRows``.

    Tables are copied into one piece a width (or given so), so that all columns are one
    lookup. Weights must not change afterwards.

    Args:
        network: Not sharded, on the CPU.
        split: Which encoded columns are shared.
        rows: For each of ``stacks_of(network.embedding)`` its rows; by default copied
            from the network.

    Example:
        See ``recsys_mtl.engine``.
    """

    def __init__(
        self,
        network: Network,
        split: SchemaSplit,
        rows: Sequence[AbstractTableRows] | None = None,
    ) -> None:
        network.eval()
        if rows is None:
            state: Mapping[str, Tensor] = network.state_dict()
            rows = [stack.rows(state) for stack in stacks_of(network.embedding)]
        self.split = split
        self.num_logits = tuple(head.num_logits for head in network.heads)
        self._bottom = network.trunk.bottom
        self._embedding = RequestEmbedding(network.embedding, split, rows)
        columns = None
        if isinstance(self._bottom, FlatBottom):
            embedding = self._embedding
            columns = self._bottom.split_columns(
                embedding.field_places, embedding.dense_places
            )
        self.trunk = RequestTrunk(network.trunk, columns)

    @torch.inference_mode()
    def score(self, batch: RequestBatch) -> Logits:
        """Give the logits of each candidate, for each task ``(N, its logits)``."""
        if batch.num_rows == 0:
            return self.no_logits()
        logits: Logits = self.trunk(*self.trunk_input(batch))
        return logits

    @torch.inference_mode()
    def trunk_input(self, batch: RequestBatch) -> TrunkInput:
        """Look up, pool and lay out: everything before ``trunk``."""
        embedded = self._embedding(batch)
        if isinstance(self._bottom, FlatBottom):
            assert self.trunk.columns is not None
            rows = self._bottom.split(embedded, self.trunk.columns)
            return rows.shared_RU, rows.own_NI, rows.request_N, *embedded.contexts
        fields_NFD, dense_NM, sequences, contexts, _ = self._embedding.joined(embedded)
        x_NSD: Tensor = self._bottom(fields_NFD, dense_NM, sequences)
        return x_NSD, *contexts

    def no_logits(self) -> Logits:
        """Give the logits of no candidates."""
        return tuple(torch.empty(0, width) for width in self.num_logits)
