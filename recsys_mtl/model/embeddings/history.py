"""One history of a row: its columns, its events, and the pooling of them."""

from collections.abc import Mapping
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchrec import JaggedTensor, KeyedJaggedTensor

from recsys_mtl.model.embeddings.pooling import AbstractPooling

__all__ = ["EventSequence", "HistoryEmbedding"]


class EventSequence(NamedTuple):
    """The embedded events of one history, for all rows of a batch.

    Attributes:
        events_NKD: All events of the first row, oldest first, then of the second; the
            first ``matched`` fields are those that the candidate has too.
        length_B: Events of each row; they add up to N.
        query_BQD: The candidate's vectors of the matched fields.
    """

    events_NKD: Float[Tensor, "events fields dim"]
    length_B: Int[Tensor, " batch"]
    query_BQD: Float[Tensor, "batch matched dim"]


@final
class HistoryEmbedding(nn.Module):
    """Gathers a history's columns into events and pools them.

    Args:
        columns: Encoded columns of the history; first those whose field the candidate
            has too, in the order of ``matched``.
        matched: Encoded columns of the candidate.
        pooling: Pools the events; none where the bottom does.

    Shape:
        - events: as ``events`` gives them
        - return: ``(batch, fields, dim)``, fields in the order of ``columns``
    """

    def __init__(
        self,
        columns: tuple[str, ...],
        matched: tuple[str, ...],
        pooling: AbstractPooling | None,
    ) -> None:
        super().__init__()
        self.columns = columns
        self.matched = matched
        self.pooling = pooling

    def forward(self, events: EventSequence) -> Float[Tensor, "batch fields dim"]:
        assert self.pooling is not None, "the bottom pools these events"
        pooled_BKD: Tensor = self.pooling(*events)
        return pooled_BKD

    def auxiliary(
        self, events: EventSequence, ids: KeyedJaggedTensor
    ) -> Float[Tensor, ""]:
        """Give the pooling's own loss, 0 for none; asked for in training alone.

        Args:
            events: As ``events`` gives them.
            ids: Of all columns.
        """
        assert self.pooling is not None, "the bottom pools these events"
        id_N = ids[self.columns[0]].values()
        return self.pooling.auxiliary(events.events_NKD, events.length_B, id_N)

    def events(self, vectors: Mapping[str, JaggedTensor]) -> EventSequence:
        """Gather the events.

        Args:
            vectors: For each encoded column its vectors, one an id.
        """
        events_NKD = torch.stack([vectors[c].values() for c in self.columns], dim=1)
        length_B = vectors[self.columns[0]].lengths()
        if self.matched:
            query_BQD = torch.stack([vectors[c].values() for c in self.matched], dim=1)
        else:
            query_BQD = events_NKD.new_empty(length_B.shape[0], 0, events_NKD.shape[2])
        return EventSequence(events_NKD, length_B, query_BQD)
