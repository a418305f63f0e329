"""Low-rank gates on features, computed together."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["FeatureGate"]

_UP_STD = 0.01
"""Normal start of the second factor: gates start close to 1, yet not at it, where
nothing but that factor would learn."""


@final
class FeatureGate(nn.Module):
    r"""Weighs every entry of an input by a number in (0, 2), once for each reader.

    For reader :math:`s` of :math:`v_s`, with a softmax over its low-rank gates,
    :math:`v_s \odot \sum_e \mathrm{softmax}(W_s v_s)_e \, 2 \sigma(v_s B_{se} A_{se})`.

    Args:
        dim: Width of the input, and of the output.
        num_readers: Number of readers.
        rank: Width between the two factors.
        num_lora: How many low-rank gates a reader mixes.

    Shape:
        - x_BSD: ``(batch, 1 or readers, dim)``
        - return: ``(batch, readers, dim)``; in memory readers come first

    Deviations:
        See ``HoME``.

    Example:
        >>> gate = FeatureGate(dim=4, num_readers=3, rank=2, num_lora=2)
        >>> gate(torch.randn(5, 1, 4)).shape
        torch.Size([5, 3, 4])
    """

    def __init__(self, dim: int, *, num_readers: int, rank: int, num_lora: int) -> None:
        super().__init__()
        self.dim = dim
        self.down_SXD = nn.Parameter(torch.empty(num_readers, num_lora * rank, dim))
        self.up_SEGD = nn.Parameter(torch.empty(num_readers, num_lora, rank, dim))
        self.mix_SED = nn.Parameter(torch.empty(num_readers, num_lora, dim))
        for reader in range(num_readers):
            nn.init.xavier_uniform_(self.mix_SED[reader])
            for down_GD in torch.split(self.down_SXD[reader], rank):
                nn.init.xavier_uniform_(down_GD)
        nn.init.normal_(self.up_SEGD, std=_UP_STD)

    def forward(
        self, x_BSD: Float[Tensor, "batch sharing dim"]
    ) -> Float[Tensor, "batch readers dim"]:
        num_readers, num_lora, rank, _ = self.up_SEGD.shape
        x_SBD = x_BSD.transpose(0, 1)
        weight_SXD = torch.cat([self.down_SXD, self.mix_SED], dim=1)
        if len(x_SBD) == 1:
            inner_BY = F.linear(x_SBD.flatten(0, 1), weight_SXD.flatten(0, 1))
            inner_SBX = inner_BY.view(-1, num_readers, weight_SXD.shape[1]).transpose(
                0, 1
            )
        else:
            inner_SBX = torch.bmm(x_SBD, weight_SXD.transpose(1, 2))
        low_SBX, logit_SBE = torch.split(inner_SBX, [num_lora * rank, num_lora], dim=2)
        low_SBEG = low_SBX.reshape(num_readers, -1, num_lora, rank)
        weight_SBE = 2 * logit_SBE.softmax(-1)
        # One at a time: tensors as large as all inputs are what costs.
        gate_SBD: Tensor | None = None
        for lora in range(num_lora):
            open_SBD = torch.bmm(low_SBEG[:, :, lora], self.up_SEGD[:, lora]).sigmoid_()
            part_SBD = weight_SBE[:, :, lora : lora + 1] * open_SBD
            gate_SBD = part_SBD if gate_SBD is None else gate_SBD.add_(part_SBD)
        assert gate_SBD is not None, "there is at least one"
        return (x_SBD * gate_SBD).transpose(0, 1)
