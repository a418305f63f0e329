"""Mean pooling: every event counts the same."""

from typing import final

from jaxtyping import Float, Int
from torch import Tensor

from recsys_mtl.model.embeddings.pooling._base import AbstractPooling, sum_events

__all__ = ["MeanPooling"]


@final
class MeanPooling(AbstractPooling):
    r"""Averages a row's events: :math:`\frac{1}{|e|} \sum_n e_n`, 0 without events.

    Shape:
        - events_NKD: ``(events, fields, dim)``
        - length_B: ``(batch,)``
        - query_BQD: ``(batch, matched, dim)``, not read
        - return: ``(batch, fields, dim)``

    Example:
        >>> import torch
        >>> events_NKD = torch.tensor([1.0, 3.0]).reshape(2, 1, 1)
        >>> query_BQD = torch.empty(2, 0, 1)
        >>> MeanPooling()(events_NKD, torch.tensor([2, 0]), query_BQD).flatten()
        tensor([2., 0.])
    """

    def forward(
        self,
        events_NKD: Float[Tensor, "events fields dim"],
        length_B: Int[Tensor, " batch"],
        query_BQD: Float[Tensor, "batch matched dim"],  # noqa: ARG002
    ) -> Float[Tensor, "batch fields dim"]:
        return sum_events(events_NKD, length_B) / length_B.clamp(min=1)[:, None, None]

    @property
    def averages(self) -> bool:
        return True
