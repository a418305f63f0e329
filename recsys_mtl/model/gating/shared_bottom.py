"""Shared bottom: one network, no gate."""

from typing import final

from torch import Tensor

from recsys_mtl.model.experts import ExpertBank
from recsys_mtl.model.gating._base import (
    AbstractGating,
    GateLevel,
    GatingTrace,
    task_gates,
)
from recsys_mtl.model.split_rows import Rows, num_rows

__all__ = ["SharedBottom"]


@final
class SharedBottom(AbstractGating):
    """Hands the output of a single expert to every task.

    Args:
        dim: Width of the input.
        hidden: Widths of the expert's layers, in order.
        num_tasks: Number of tasks that read the expert.
        dropout: Probability to drop a hidden unit while training.

    Shape:
        - x_BSD: ``(batch, 1 or tasks, dim)``
        - return: ``(batch, tasks, hidden[-1])``

    References:
        Caruana, "Multitask Learning", Machine Learning 28 (1997),
        doi:10.1023/A:1007379606734.

    Example:
        >>> import torch
        >>> gating = SharedBottom(dim=4, hidden=(8,), num_tasks=2)
        >>> gating(torch.randn(5, 1, 4)).shape
        torch.Size([5, 2, 8])
    """

    def __init__(
        self, dim: int, hidden: tuple[int, ...], *, num_tasks: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.out_dim = hidden[-1]
        self.num_tasks = num_tasks
        self.experts = ExpertBank(dim, hidden, num_experts=1, dropout=dropout)

    def trace(self, x_BSD: Rows) -> GatingTrace:
        expert_BSEH: Tensor = self.experts(x_BSD)
        hidden_BTH = expert_BSEH.squeeze(2).expand(-1, self.num_tasks, -1)
        one = expert_BSEH.new_ones(())
        weight_BTE = one.expand(num_rows(x_BSD), self.num_tasks, 1)
        gates = task_gates(self.num_tasks)
        level = GateLevel("experts", ("shared",), gates, weight_BTE, expert_BSEH)
        return GatingTrace(hidden_BTH, (level,))
