"""One MLP per task."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from recsys_mtl.model.towers._base import AbstractTower

__all__ = ["MLPTower"]


@final
class MLPTower(AbstractTower):
    r"""Runs a ReLU MLP of one shape per task as batched products, then the logits.

    For task :math:`t`,
    :math:`V_t \phi(W_t^{(n)} \dots \phi(W_t^{(1)} h_t + b_t^{(1)})) + c_t`.

    Args:
        dim: Width of the input.
        hidden: Widths of the layers before the logits, in order; at least one.
        num_logits: Logits of each task.
        dropout: Probability to drop a hidden unit while training.

    Shape:
        - h_BTH: ``(batch, tasks, dim)``
        - return: for each task ``(batch, its logits)``

    Example:
        >>> tower = MLPTower(dim=4, hidden=(8,), num_logits=(1, 2))
        >>> [logits_BC.shape for logits_BC in tower(torch.randn(5, 2, 4))]
        [torch.Size([5, 1]), torch.Size([5, 2])]
    """

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, ...],
        *,
        num_logits: tuple[int, ...],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in zip((dim, *hidden), hidden, strict=False):
            weight_THG = torch.empty(len(num_logits), fan_out, fan_in)
            for weight_HG in weight_THG:
                nn.init.xavier_uniform_(weight_HG)
            self.weights.append(nn.Parameter(weight_THG))
            self.biases.append(nn.Parameter(torch.zeros(len(num_logits), fan_out)))
        self.logits = nn.ModuleList(nn.Linear(hidden[-1], c) for c in num_logits)

    def start_at(self, logits: Sequence[Sequence[float]]) -> None:
        with torch.no_grad():
            for layer, start in zip(self.logits.children(), logits, strict=True):
                assert isinstance(layer, nn.Linear)
                layer.bias.copy_(torch.tensor(start))

    def forward(
        self,
        h_BTH: Float[Tensor, "batch tasks hidden"],
        contexts: tuple[Float[Tensor, "batch _ _"], ...] = (),  # noqa: ARG002
    ) -> tuple[Float[Tensor, "batch _"], ...]:
        h_TBH = h_BTH.transpose(0, 1)
        for weight_THG, bias_TH in zip(self.weights, self.biases, strict=True):
            h_TBH = torch.baddbmm(bias_TH[:, None], h_TBH, weight_THG.transpose(1, 2))
            h_TBH = F.dropout(F.relu_(h_TBH), self.dropout, self.training)
        last = zip(self.logits, h_TBH.unbind(), strict=True)
        return tuple(layer(h_BH) for layer, h_BH in last)
