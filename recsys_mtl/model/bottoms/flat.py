"""All fields and numbers side by side."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from recsys_mtl.model.bottoms._base import AbstractBottom
from recsys_mtl.model.dropout import dropout
from recsys_mtl.model.embeddings import EventSequence, RequestEmbedded
from recsys_mtl.model.split_rows import SplitColumns, SplitRows

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

    def split(self, embedded: RequestEmbedded, columns: SplitColumns) -> SplitRows:
        """Concatenate shared and own parts apart, in evaluation mode.

        Args:
            embedded: Requests.
            columns: As ``split_columns`` gives them.
        """
        shared_RU, own_NI = (
            torch.cat([fields.flatten(1), dense], dim=1)
            if dense.shape[1]
            else fields.flatten(1)
            for fields, dense in (
                (embedded.shared_RFD, embedded.shared_RM),
                (embedded.own_NFD, embedded.own_NM),
            )
        )
        return SplitRows(columns, shared_RU, own_NI, embedded.request_N)

    def split_columns(
        self,
        fields: tuple[Sequence[int], Sequence[int]],
        dense: tuple[Sequence[int], Sequence[int]],
    ) -> SplitColumns:
        """Say where the columns of both parts of ``split`` lie in ``forward``'s output.

        Args:
            fields: Places of the shared fields among all, and of the own ones.
            dense: The same of numbers.
        """
        first_number = self.out_dim - len(dense[0]) - len(dense[1])
        dim = first_number // max(len(fields[0]) + len(fields[1]), 1)
        places = [
            [f * dim + d for f in of_side for d in range(dim)]
            + [first_number + m for m in numbers]
            for of_side, numbers in zip(fields, dense, strict=True)
        ]
        return SplitColumns(*places)
