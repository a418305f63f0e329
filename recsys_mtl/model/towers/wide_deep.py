"""Wide & Deep: a linear model of the ids beside an MLP."""

import itertools
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recsys_mtl.model.split_rows import SplitRows, tasks_first
from recsys_mtl.model.task_mlp import TaskLogits, TaskMLP
from recsys_mtl.model.towers._base import AbstractTower

__all__ = ["WideDeepTower"]


@final
class WideDeepTower(AbstractTower):
    r"""Adds a linear model of sparse columns to an MLP's logits.

    :math:`\sum_f w_f[x_f] + v \cdot \mathrm{MLP}(h) + b`. The weights
    :math:`w_f[\cdot]` are the rows of tables of the tower's own, one number a logit;
    a crossed feature makes them weights of combinations.

    Args:
        dim: Width of the input.
        hidden: Widths of the MLP's layers, in order; at least one.
        num_logits: Logits of each task.
        dropout: Probability to drop a hidden unit while training.
        batch_norm: Whether hidden layers are standardised.

    Shape:
        - h_BTH: ``(batch, tasks, dim)``
        - contexts: one of ``(batch, columns, all logits or more)``
        - return: for each task ``(batch, its logits)``

    Deviations:
        - Several tasks run side by side; one row of a table holds the weights of all
          their logits. It is as wide as the next multiple of four, which the fused
          update of tables asks for; what is left over is not read. Row-wise Adagrad
          takes one rate for a row, so all logits of an id share it, and the mean that
          it takes over the row counts the numbers left over as zeros.
        - Both parts are trained as the recipe says. The paper takes FTRL with L1 for
          the wide part and AdaGrad for the deep one.
        - A list counts as the mean of its values, not as their sum, and numbers may be
          read by the linear part too.

    References:
        H.-T. Cheng et al. Wide & deep learning for recommender systems. DLRS 2016.
        arXiv:1606.07792

    Example:
        >>> import torch
        >>> tower = WideDeepTower(4, (8,), num_logits=(1, 2))
        >>> weights_BFX = torch.randn(5, 3, 4)
        >>> [x_BC.shape for x_BC in tower(torch.randn(5, 2, 4), (weights_BFX,))]
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
        self.num_logits = num_logits
        self.mlp = TaskMLP(
            dim,
            hidden,
            num_tasks=len(num_logits),
            dropout=dropout,
            batch_norm=batch_norm,
            init=nn.init.xavier_normal_,
        )
        self.logits = TaskLogits(hidden[-1], num_logits, init=nn.init.xavier_normal_)

    def start_at(self, logits: Sequence[Sequence[float]]) -> None:
        self.logits.start_at(list(itertools.chain.from_iterable(logits)))

    def forward(
        self,
        h_BTH: Float[Tensor, "batch tasks hidden"] | SplitRows,
        contexts: tuple[Float[Tensor, "batch _ _"], ...] = (),
    ) -> tuple[Float[Tensor, "batch _"], ...]:
        (wide_BFX,) = contexts
        deep_BX: Tensor = self.logits(self.mlp(tasks_first(h_BTH)))
        logits_BX = deep_BX + wide_BFX.sum(1)[:, : sum(self.num_logits)]
        return torch.split(logits_BX, list(self.num_logits), dim=1)
