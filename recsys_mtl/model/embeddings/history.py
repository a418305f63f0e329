"""One history of a row: its columns, and the pooling of its events."""

from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchrec import JaggedTensor

from recsys_mtl.model.embeddings.pooling import AbstractPooling

__all__ = ["HistoryEmbedding"]


@final
class HistoryEmbedding(nn.Module):
    """Gathers a history's columns into events and pools them.

    Args:
        columns: Encoded columns of the history; first those whose field the candidate
            has too, in the order of ``matched``.
        matched: Encoded columns of the candidate.
        pooling: Pools the events.

    Shape:
        - vectors: for each encoded column its vectors, one an id
        - return: ``(batch, fields, dim)``, fields in the order of ``columns``
    """

    def __init__(
        self,
        columns: tuple[str, ...],
        matched: tuple[str, ...],
        pooling: AbstractPooling,
    ) -> None:
        super().__init__()
        self.columns = columns
        self.matched = matched
        self.pooling = pooling

    def forward(
        self, vectors: Mapping[str, JaggedTensor]
    ) -> Float[Tensor, "batch fields dim"]:
        events_NKD = torch.stack([vectors[c].values() for c in self.columns], dim=1)
        length_B = vectors[self.columns[0]].lengths()
        if self.matched:
            query_BQD = torch.stack([vectors[c].values() for c in self.matched], dim=1)
        else:
            query_BQD = events_NKD.new_empty(length_B.shape[0], 0, events_NKD.shape[2])
        pooled_BKD: Tensor = self.pooling(events_NKD, length_B, query_BQD)
        return pooled_BKD
