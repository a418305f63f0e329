"""DCN-V2: explicit crosses of the input with itself, and an MLP."""

import itertools
from collections.abc import Sequence
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recsys_mtl.model.split_rows import SplitRows, tasks_first, whole
from recsys_mtl.model.task_mlp import TaskLinear, TaskLogits, TaskMLP
from recsys_mtl.model.towers._base import AbstractTower

__all__ = ["DCNV2Tower"]


@final
class DCNV2Tower(AbstractTower):
    r"""Crosses the input with itself layer by layer, beside an MLP or under it.

    Cross layer :math:`x_{l+1} = x_0 \odot (W_l x_l + b_l) + x_l` with a full matrix.
    ``parallel`` ends in an affine map of :math:`[x_L; \mathrm{MLP}(x_0)]`, ``stacked``
    in one of :math:`\mathrm{MLP}(x_L)`.

    Args:
        dim: Width of the input.
        hidden: Widths of the MLP's layers, in order; at least one.
        num_layers: Cross layers.
        structure: Where the MLP stands.
        num_logits: Logits of each task.
        dropout: Probability to drop a hidden unit of the MLP while training.
        batch_norm: Whether hidden layers of the MLP are standardised.

    Shape:
        - h_BTH: ``(batch, tasks, dim)``
        - return: for each task ``(batch, its logits)``

    Deviations:
        - Several tasks run side by side, each with networks of its own.
        - Full matrices only; the paper's mixture of low-rank experts is left out.
        - Matrices start by Xavier's normal rule; the last bias starts at the head's
          initial logits. The paper's start has not been checked.

    References:
        R. Wang, R. Shivanna, D. Cheng, S. Jain, D. Lin, L. Hong, E. Chi. DCN V2:
        improved deep & cross network and practical lessons for web-scale learning to
        rank systems. WWW 2021. arXiv:2008.13535

    Example:
        >>> tower = DCNV2Tower(
        ...     4, (8,), num_layers=2, structure="parallel", num_logits=(1,)
        ... )
        >>> [logits_BC.shape for logits_BC in tower(torch.randn(5, 1, 4))]
        [torch.Size([5, 1])]
    """

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, ...],
        *,
        num_layers: int,
        structure: Literal["parallel", "stacked"],
        num_logits: tuple[int, ...],
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.num_logits = num_logits
        self.stacked = structure == "stacked"
        num_tasks, init = len(num_logits), nn.init.xavier_normal_
        self.crosses = nn.ModuleList(
            TaskLinear(dim, dim, num_tasks=num_tasks, init=init)
            for _ in range(num_layers)
        )
        self.mlp = TaskMLP(
            dim,
            hidden,
            num_tasks=num_tasks,
            dropout=dropout,
            batch_norm=batch_norm,
            init=init,
        )
        width = hidden[-1] if self.stacked else hidden[-1] + dim
        self.logits = TaskLogits(width, num_logits, init=init)

    def start_at(self, logits: Sequence[Sequence[float]]) -> None:
        self.logits.start_at(list(itertools.chain.from_iterable(logits)))

    def forward(
        self,
        h_BTH: Float[Tensor, "batch tasks hidden"] | SplitRows,
        contexts: tuple[Float[Tensor, "batch _ _"], ...] = (),  # noqa: ARG002
    ) -> tuple[Float[Tensor, "batch _"], ...]:
        first = tasks_first(h_BTH)
        x_TBH = crossed_TBH = whole(h_BTH).transpose(0, 1)
        for number, cross in enumerate(self.crosses):
            product_TBH = cross(crossed_TBH if number else first)
            crossed_TBH = torch.addcmul(crossed_TBH, x_TBH, product_TBH)
        if self.stacked:
            last_TBH = self.mlp(crossed_TBH)
        else:
            last_TBH = torch.cat([crossed_TBH, self.mlp(first)], dim=2)
        logits_BX: Tensor = self.logits(last_TBH)
        return torch.split(logits_BX, list(self.num_logits), dim=1)
