"""Target attention of the Deep Interest Network (DIN)."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from recsys_mtl.model.embeddings.pooling._base import AbstractPooling, sum_events

__all__ = ["TargetAttention"]


@final
class TargetAttention(AbstractPooling):
    r"""Weighs events by a small network that compares each with the candidate.

    With the candidate's vectors :math:`q` and those of an event, :math:`k` for the
    fields that the candidate has too and :math:`e` for all,
    :math:`\sum_n a(q, e_n, q \odot k_n) \, e_n`. The activation unit :math:`a` is an
    MLP with PReLU. Its weights are not normalised: their sum tells how strongly the
    history speaks for the candidate.

    Args:
        dim: Width of an embedding.
        num_fields: Fields of an event.
        num_matched: How many of them, the first ones, the candidate has too.
        hidden: Widths of the activation unit's layers, in order.
        dropout: Probability to drop a hidden unit of it while training.

    Shape:
        - events_NKD: ``(events, fields, dim)``
        - length_B: ``(batch,)``
        - query_BQD: ``(batch, matched, dim)``
        - return: ``(batch, fields, dim)``

    Deviations:
        The candidate and the event meet in their elementwise product, as in the
        authors' code; the paper draws an outer product. The authors also feed the
        difference ``q - k``; it is left out, because the first layer is linear and
        sees both. PReLU, which the paper compares with, instead of Dice, whose output
        depends on the rest of the batch. Fields that only the event has, as the time
        gap, are fed and pooled as well.

    References:
        Zhou et al., "Deep Interest Network for Click-Through Rate Prediction",
        KDD 2018, doi:10.1145/3219819.3219823.

    Example:
        >>> pooling = TargetAttention(4, num_fields=3, num_matched=2, hidden=(8,))
        >>> length_B = torch.tensor([2, 0, 3])
        >>> pooling(torch.randn(5, 3, 4), length_B, torch.randn(3, 2, 4)).shape
        torch.Size([3, 3, 4])
    """

    def __init__(
        self,
        dim: int,
        *,
        num_fields: int,
        num_matched: int,
        hidden: tuple[int, ...],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        assert 0 < num_matched <= num_fields, "attention needs something to compare"
        self.dropout = dropout
        self.num_matched = num_matched
        # The candidate's part of the first layer is computed once a row, not an event.
        self.query = nn.Linear(num_matched * dim, hidden[0])
        self.event = nn.Linear((num_fields + num_matched) * dim, hidden[0], bias=False)
        self.activations = nn.ModuleList(nn.PReLU(width) for width in hidden)
        self.layers = nn.ModuleList(
            nn.Linear(fan_in, fan_out)
            for fan_in, fan_out in zip(hidden, (*hidden[1:], 1), strict=True)
        )

    def forward(
        self,
        events_NKD: Float[Tensor, "events fields dim"],
        length_B: Int[Tensor, " batch"],
        query_BQD: Float[Tensor, "batch matched dim"],
    ) -> Float[Tensor, "batch fields dim"]:
        row_N = torch.repeat_interleave(length_B, output_size=events_NKD.shape[0])
        query_NQD = query_BQD.index_select(0, row_N)
        product_NQD = query_NQD * events_NKD[:, : self.num_matched]
        input_NG = torch.cat([events_NKD.flatten(1), product_NQD.flatten(1)], dim=1)
        query_BH = self.query(query_BQD.flatten(1))
        h_NH = self.event(input_NG) + query_BH.index_select(0, row_N)
        for activation, layer in zip(self.activations, self.layers, strict=True):
            h_NH = layer(F.dropout(activation(h_NH), self.dropout, self.training))
        return sum_events(h_NH[:, :, None] * events_NKD, length_B)

    @property
    def reads_candidate(self) -> bool:
        return True

    def prepare(
        self,
        events_EKD: Float[Tensor, "events fields dim"],
        length_R: Int[Tensor, " requests"],
    ) -> list[tuple[Tensor, ...]]:
        event_EX = events_EKD.flatten(1)
        key_EH = F.linear(event_EX, self.event.weight[:, : event_EX.shape[1]])
        lengths = length_R.tolist()
        return list(
            zip(
                torch.split(events_EKD, lengths),
                torch.split(key_EH, lengths),
                strict=True,
            )
        )

    def pool_one(
        self,
        shared: tuple[Tensor, ...],
        query_NQD: Float[Tensor, "rows matched dim"],
    ) -> Float[Tensor, "rows fields dim"]:
        events_LKD, key_LH = shared
        num_rows, num_events = len(query_NQD), len(events_LKD)
        # Only the product of both is worked out for every pair.
        matched_LQD = events_LKD[:, : self.num_matched]
        product_NLQD = query_NQD[:, None] * matched_LQD
        product_XQ = product_NLQD.flatten(2).flatten(0, 1)
        weight_HQ = self.event.weight[:, -product_XQ.shape[1] :]
        query_NH: Tensor = self.query(query_NQD.flatten(1))
        h_XH = (query_NH[:, None] + key_LH).flatten(0, 1)
        h_XH = h_XH.addmm_(product_XQ, weight_HQ.t())
        for activation, layer in zip(self.activations, self.layers, strict=True):
            h_XH = layer(activation(h_XH))
        pooled_NX = h_XH.view(num_rows, num_events) @ events_LKD.flatten(1)
        return pooled_NX.view(num_rows, *events_LKD.shape[1:])
