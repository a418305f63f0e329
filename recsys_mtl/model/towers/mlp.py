"""One MLP per task."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recsys_mtl.model.split_rows import SplitRows, tasks_first
from recsys_mtl.model.task_mlp import TaskMLP, exact_products
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
        batch_norm: Whether each hidden layer is standardised before its ReLU.

    Shape:
        - h_BTH: ``(batch, tasks, dim)``
        - return: for each task ``(batch, its logits)``; float32 even under autocast

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
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.mlp = TaskMLP(
            dim,
            hidden,
            num_tasks=len(num_logits),
            dropout=dropout,
            batch_norm=batch_norm,
        )
        self.logits = nn.ModuleList(nn.Linear(hidden[-1], c) for c in num_logits)

    def start_at(self, logits: Sequence[Sequence[float]]) -> None:
        with torch.no_grad():
            for layer, start in zip(self.logits.children(), logits, strict=True):
                assert isinstance(layer, nn.Linear)
                layer.bias.copy_(torch.tensor(start))

    def forward(
        self,
        h_BTH: Float[Tensor, "batch tasks hidden"] | SplitRows,
        contexts: tuple[Float[Tensor, "batch _ _"], ...] = (),  # noqa: ARG002
    ) -> tuple[Float[Tensor, "batch _"], ...]:
        h_TBH = self.mlp(tasks_first(h_BTH))
        with exact_products(h_TBH) as last_TBH:
            last = zip(self.logits, last_TBH.unbind(), strict=True)
            return tuple(layer(h_BH) for layer, h_BH in last)
