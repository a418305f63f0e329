"""Multi-gate mixture of experts (MMoE)."""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys_mtl.model.experts import ExpertBank
from recsys_mtl.model.gating._base import (
    AbstractGating,
    GateLevel,
    GatingTrace,
    mix,
    task_gates,
)
from recsys_mtl.model.split_rows import Rows, SplitRows

__all__ = ["MMoE"]


@final
class MMoE(AbstractGating):
    r"""Mixes shared experts with one softmax gate per task.

    For task :math:`t`, :math:`y_t = \sum_e \mathrm{softmax}(W_t x_t)_e \, f_e(x_t)`.

    Args:
        dim: Width of the input.
        hidden: Widths of each expert's layers, in order.
        num_experts: Number of experts to mix.
        num_tasks: Number of gates.
        dropout: Probability to drop a hidden unit while training.

    Shape:
        - x_BSD: ``(batch, 1 or tasks, dim)``
        - return: ``(batch, tasks, hidden[-1])``

    Deviations:
        The gates of all tasks are stored as one parameter; the arithmetic is that
        of the paper.

    References:
        Ma et al., "Modeling Task Relationships in Multi-task Learning with
        Multi-gate Mixture-of-Experts", KDD 2018, doi:10.1145/3219819.3220007.

    Example:
        >>> gating = MMoE(dim=4, hidden=(8,), num_experts=3, num_tasks=2)
        >>> gating(torch.randn(5, 1, 4)).shape
        torch.Size([5, 2, 8])
    """

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, ...],
        *,
        num_experts: int,
        num_tasks: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.out_dim = hidden[-1]
        self.experts = ExpertBank(dim, hidden, num_experts, dropout=dropout)
        self.gates_TED = nn.Parameter(torch.empty(num_tasks, num_experts, dim))
        for gate_ED in self.gates_TED:
            nn.init.xavier_uniform_(gate_ED)

    def trace(self, x_BSD: Rows) -> GatingTrace:
        expert_BSEH: Tensor = self.experts(x_BSD)
        num_tasks, num_experts, _ = self.gates_TED.shape
        if isinstance(x_BSD, SplitRows):
            logit_BX = x_BSD.linear(self.gates_TED)
            gate_BTE = logit_BX.view(-1, num_tasks, num_experts).softmax(-1)
        elif x_BSD.shape[1] == 1:
            logit_BX = F.linear(x_BSD.flatten(0, 1), self.gates_TED.flatten(0, 1))
            gate_BTE = logit_BX.view(-1, num_tasks, num_experts).softmax(-1)
        else:
            gate_BTE = torch.einsum("btd,ted->bte", x_BSD, self.gates_TED).softmax(-1)
        experts, gates = ("shared",) * num_experts, task_gates(num_tasks)
        level = GateLevel("experts", experts, gates, gate_BTE, expert_BSEH)
        return GatingTrace(mix(gate_BTE, expert_BSEH), (level,))
