"""A bank of equally shaped experts, computed together."""

from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from recsys_mtl.model.dropout import dropout
from recsys_mtl.model.split_rows import SplitRows
from recsys_mtl.model.task_mlp import TaskBatchNorm

__all__ = ["ExpertBank"]


@final
class ExpertBank(nn.Module):
    r"""Runs ``num_experts`` MLPs of one shape as a few large matrix products.

    For expert :math:`e`, :math:`f_e(x) = \phi(W_e^{(n)} \dots \phi(W_e^{(1)} x))`.
    The first layer of all experts that read the same input is one product; every
    later layer is one batched product over experts.

    Args:
        dim: Width of the input.
        hidden: Widths of the layers, in order; at least one.
        num_experts: Number of experts.
        dropout: Probability to drop a hidden unit while training.
        activation: :math:`\phi`; SiLU is also called Swish.
        batch_norm: Whether every unit is standardised over the rows before its
            activation; layers then have no bias, for the normalisation has one. A
            batch of one row goes by the running averages (see ``TaskBatchNorm``).
        divided: Whether inputs divide the experts among themselves, the first ones to
            the first input; otherwise every expert reads every input. The number of
            inputs then divides that of experts.

    Shape:
        - x_BSD: ``(batch, sharing, dim)``, or rows split by requests, which the first
          layer multiplies in two parts
        - return: ``(batch, sharing, experts, hidden[-1])``; ``(batch, 1, experts,
          hidden[-1])`` where inputs divide the experts

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
        activation: Literal["relu", "silu"] = "relu",
        batch_norm: bool = False,
        divided: bool = False,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.activation = activation
        self.divided = divided
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        self.norms = nn.ModuleList()
        for fan_in, fan_out in zip((dim, *hidden), hidden, strict=False):
            weight_EHD = torch.empty(num_experts, fan_out, fan_in)
            for weight_HD in weight_EHD:
                nn.init.xavier_uniform_(weight_HD)
            self.weights.append(nn.Parameter(weight_EHD))
            if batch_norm:
                self.norms.append(TaskBatchNorm(num_experts, fan_out))
            else:
                self.biases.append(nn.Parameter(torch.zeros(num_experts, fan_out)))

    def forward(
        self, x_BSD: Float[Tensor, "batch sharing dim"] | SplitRows
    ) -> Float[Tensor, "batch _ experts hidden"]:
        if isinstance(x_BSD, SplitRows):
            num_rows, sharing = x_BSD.request_N.shape[0], 1
            h_NX = x_BSD.linear(self.weights[0], self._bias(0))
            h_NEH = self._activated(0, h_NX, num_inputs=1)
        else:
            num_rows, sharing, _ = x_BSD.shape
            x_SND = x_BSD.transpose(0, 1) if self.divided else x_BSD.flatten(0, 1)[None]
            h_NEH = self._layer(0, x_SND)
        for number in range(1, len(self.weights)):
            # In bf16 oneDNN copies what is not contiguous one number at a time: a copy
            # of our own makes a training step a fifth faster; in fp32 no difference.
            h_NEH = self._layer(number, h_NEH.transpose(0, 1).contiguous())
        return h_NEH.view(num_rows, 1 if self.divided else sharing, *h_NEH.shape[1:])

    def _layer(self, number: int, x_SND: Tensor) -> Tensor:
        """Run a layer; ``S`` counts inputs that divide the experts."""
        num_inputs, _, dim = x_SND.shape
        weight_EHD, bias_EH = self.weights[number], self._bias(number)
        if num_inputs == 1:
            # A product of two matrices is faster than a batch of one such product.
            bias_X = None if bias_EH is None else bias_EH.flatten()
            h = F.linear(x_SND.flatten(0, 1), weight_EHD.flatten(0, 1), bias_X)
        else:
            weight_SDX = weight_EHD.view(num_inputs, -1, dim).transpose(1, 2)
            if bias_EH is None:
                h = torch.bmm(x_SND, weight_SDX)
            else:
                h = torch.baddbmm(bias_EH.view(num_inputs, 1, -1), x_SND, weight_SDX)
        return self._activated(number, h, num_inputs)

    def _activated(self, number: int, h: Tensor, num_inputs: int) -> Tensor:
        """Finish a layer whose product is there, input by input."""
        num_experts, width, _ = self.weights[number].shape
        # In place before views are taken: of a view, backward would copy.
        h = h if self.norms else self._phi(h)
        num_rows = h.shape[-2]
        # Copies only where several inputs have several experts each.
        h_SNX = h.view(num_inputs, num_rows, num_experts * width // num_inputs)
        h_NEH = h_SNX.transpose(0, 1).reshape(num_rows, num_experts, width)
        if not self.norms:
            return h_NEH
        h_ENH: Tensor = self.norms[number](h_NEH.transpose(0, 1))
        return self._phi(h_ENH.transpose(0, 1))

    def _bias(self, number: int) -> Tensor | None:
        return self.biases[number] if self.biases else None

    def _phi(self, h: Tensor) -> Tensor:
        if self.activation == "relu":
            h = F.relu(h, inplace=not self.norms)
        else:
            h = F.silu(h)
        return dropout(h, self.dropout, self.training)
