"""Numbers become vectors."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["LinearNumbers"]


@final
class LinearNumbers(nn.Module):
    r"""Scales a vector of each number's own by the number, :math:`x_m v_m`.

    Vectors start as the weights of as many bias-free linear layers from 1 to ``dim``
    would by Xavier's normal rule.

    Args:
        num_numbers: Numbers of a row.
        dim: Width of a vector.

    Shape:
        - dense_BM: ``(batch, num_numbers)``
        - return: ``(batch, num_numbers, dim)``

    Example:
        >>> LinearNumbers(3, dim=4)(torch.randn(5, 3)).shape
        torch.Size([5, 3, 4])
    """

    def __init__(self, num_numbers: int, *, dim: int) -> None:
        super().__init__()
        self.weight_MD = nn.Parameter(torch.empty(num_numbers, dim))
        nn.init.normal_(self.weight_MD, std=(2 / (1 + dim)) ** 0.5)

    def forward(
        self, dense_BM: Float[Tensor, "batch dense"]
    ) -> Float[Tensor, "batch dense dim"]:
        return dense_BM[:, :, None] * self.weight_MD
