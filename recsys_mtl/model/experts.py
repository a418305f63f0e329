"""A bank of equally shaped experts, computed together."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["ExpertBank"]


@final
class ExpertBank(nn.Module):
    r"""Runs ``num_experts`` ReLU MLPs of one shape as a few large matrix products.

    For expert :math:`e`, :math:`f_e(x) = \phi(W_e^{(n)} \dots \phi(W_e^{(1)} x))`.
    The first layer of all experts is one product, because they share their input;
    every later layer is one batched product over experts.

    Args:
        dim: Width of the input.
        hidden: Widths of the layers, in order; at least one.
        num_experts: Number of experts.
        dropout: Probability to drop a hidden unit while training.

    Shape:
        - x_BSD: ``(batch, sharing, dim)``
        - return: ``(batch, sharing, experts, hidden[-1])``; in memory experts come
          first, so that later products over experts need no copy

    Example:
        >>> bank = ExpertBank(dim=4, hidden=(8, 6), num_experts=3)
        >>> bank(torch.randn(5, 1, 4)).shape
        torch.Size([5, 1, 3, 6])
    """

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, ...],
        num_experts: int,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in zip((dim, *hidden), hidden, strict=False):
            weight_EHD = torch.empty(num_experts, fan_out, fan_in)
            for weight_HD in weight_EHD:
                nn.init.xavier_uniform_(weight_HD)
            self.weights.append(nn.Parameter(weight_EHD))
            self.biases.append(nn.Parameter(torch.zeros(num_experts, fan_out)))

    def forward(
        self, x_BSD: Float[Tensor, "batch sharing dim"]
    ) -> Float[Tensor, "batch sharing experts hidden"]:
        first_EHD, *rest = self.weights
        x_ND = x_BSD.flatten(0, 1)
        h_NX = F.linear(x_ND, first_EHD.flatten(0, 1), self.biases[0].flatten())
        h_NEH = self._phi(h_NX).view(-1, *first_EHD.shape[:2])
        # In bf16 oneDNN copies what is not contiguous one number at a time: a copy of
        # our own makes a training step a fifth faster. In fp32 it makes no difference.
        h_ENH = h_NEH.transpose(0, 1).contiguous()
        for weight_EHG, bias_EH in zip(rest, self.biases[1:], strict=True):
            h_ENH = self._phi(
                torch.baddbmm(bias_EH[:, None], h_ENH, weight_EHG.transpose(1, 2))
            )
        num_experts, _, width = h_ENH.shape
        return h_ENH.view(num_experts, *x_BSD.shape[:2], width).permute(1, 2, 0, 3)

    def _phi(self, h: Tensor) -> Tensor:
        return F.dropout(F.relu_(h), self.dropout, self.training)
