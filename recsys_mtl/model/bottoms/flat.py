"""All fields and numbers side by side."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from recsys_mtl.model.bottoms._base import AbstractBottom
from recsys_mtl.model.dropout import dropout
from recsys_mtl.model.embeddings import EventSequence

__all__ = ["FlatBottom"]


@final
class FlatBottom(AbstractBottom):
    """Concatenates fields and numbers; all tasks share the result.

    Args:
        num_fields: Vectors of a row.
        dim: Width of a vector.
        num_dense: Numbers of a row.
        dropout: Probability to drop an entry while training.

    Shape:
        - fields_BFD: ``(batch, num_fields, dim)``
        - dense_BM: ``(batch, num_dense)``
        - return: ``(batch, 1, num_fields * dim + num_dense)``

    Example:
        >>> bottom = FlatBottom(num_fields=3, dim=4, num_dense=2)
        >>> bottom(torch.randn(5, 3, 4), torch.randn(5, 2)).shape
        torch.Size([5, 1, 14])
    """

    def __init__(
        self, *, num_fields: int, dim: int, num_dense: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.out_dim = num_fields * dim + num_dense
        self.dropout = dropout

    def forward(
        self,
        fields_BFD: Float[Tensor, "batch fields dim"],
        dense_BM: Float[Tensor, "batch dense"],
        sequences: tuple[EventSequence, ...] = (),  # noqa: ARG002
    ) -> Float[Tensor, "batch sharing out"]:
        x_BD = torch.cat([fields_BFD.flatten(1), dense_BM], dim=1)
        return dropout(x_BD, self.dropout, self.training)[:, None]
