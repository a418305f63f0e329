"""Customized gate control (CGC) and progressive layered extraction (PLE)."""

from typing import final

import torch
from torch import Tensor, nn

from recsys_mtl.model.experts import ExpertBank
from recsys_mtl.model.gating._base import (
    AbstractGating,
    GateLevel,
    GatingTrace,
    mix,
    task_gates,
)
from recsys_mtl.model.gating.gate_bank import GateBank
from recsys_mtl.model.split_rows import Rows, SplitRows

__all__ = ["PLE"]


@final
class PLE(AbstractGating):
    r"""Mixes each task's own experts with shared ones, level by level.

    Every level has ``num_specific`` experts a task and ``num_shared`` shared ones. With
    the output :math:`h_t` of the level below (the input, at the first level),
    :math:`h_t \leftarrow \sum_{e \in V_t} \mathrm{softmax}(W_t h_t)_e f_e`, where
    :math:`V_t` are the task's own experts, which read :math:`h_t`, and the shared ones.
    Between levels a shared branch :math:`h_s` is mixed the same way, of all experts of
    all tasks and the shared ones; it is what the next level's shared experts read.
    With one level this is CGC.

    Args:
        dim: Width of the input.
        hidden: For each level the widths of its experts' layers, in order.
        num_tasks: Number of tasks.
        num_specific: Experts of each task at each level.
        num_shared: Shared experts at each level; without any, tasks share nothing,
            and there is no shared branch. With one own expert besides there are no
            gates either: every task has an MLP.
        dropout: Probability to drop a hidden unit while training.

    Shape:
        - x_BSD: ``(batch, 1 or tasks, dim)``
        - return: ``(batch, tasks, hidden[-1][-1])``

    Deviations:
        - The paper has one input. Where each task has its own, the first level's
          shared experts are run on each of them, and a task mixes them as run on its
          own; the shared branch starts from the mean over tasks.
        - The paper's schedule of loss weights is no part of this.

    References:
        Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning
        (MTL) Model for Personalized Recommendations", RecSys 2020,
        doi:10.1145/3383313.3412236.

    Example:
        >>> gating = PLE(4, ((8,), (6,)), num_tasks=2, num_specific=1, num_shared=2)
        >>> gating(torch.randn(5, 1, 4)).shape
        torch.Size([5, 2, 6])
    """

    def __init__(
        self,
        dim: int,
        hidden: tuple[tuple[int, ...], ...],
        *,
        num_tasks: int,
        num_specific: int,
        num_shared: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.out_dim = hidden[-1][-1]
        self.num_tasks = num_tasks
        inputs = (dim, *(widths[-1] for widths in hidden))
        self.levels = nn.ModuleList(
            _Level(
                inputs[number],
                widths,
                num_tasks=num_tasks,
                num_specific=num_specific,
                num_shared=num_shared,
                branch=num_shared > 0 and number + 1 < len(hidden),
                dropout=dropout,
            )
            for number, widths in enumerate(hidden)
        )

    def trace(self, x_BSD: Rows) -> GatingTrace:
        h_BSD: Rows = self._start(x_BSD)
        shared_BSD = h_BSD
        levels: list[GateLevel] = []
        for number, level in enumerate(self.levels, start=1):
            seen: GateLevel = level(f"level{number}", h_BSD, shared_BSD)
            mixed_BTH = mix(seen.weight_BTE, seen.expert_BSEH)
            h_BSD, shared_BSD = mixed_BTH, mixed_BTH[:, self.num_tasks :]
            levels.append(seen)
        return GatingTrace(h_BSD, tuple(levels))

    def _start(self, x_BSD: Rows) -> Rows:
        """Append the shared branch's input, where branches have inputs of their own."""
        first = self.levels[0]
        assert isinstance(first, _Level)
        if isinstance(x_BSD, SplitRows):
            return x_BSD
        if x_BSD.shape[1] == 1 or len(first.names) == self.num_tasks:
            return x_BSD
        return torch.cat([x_BSD, x_BSD.mean(1, keepdim=True)], dim=1)


@final
class _Level(nn.Module):
    """Experts by task and shared ones, with a gate a task and, if asked, one of all.

    Shape:
        - h_BSD: ``(batch, 1 or branches, dim)``, tasks first, then the shared branch
        - shared_BSD: what the shared experts read; for all gates, or for each its own
    """

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, ...],
        *,
        num_tasks: int,
        num_specific: int,
        num_shared: int,
        branch: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        num_own = num_tasks * num_specific
        self.num_tasks = num_tasks
        self.names = (*task_gates(num_tasks), *(["shared"] if branch else []))
        self.owners = (
            *(name for name in task_gates(num_tasks) for _ in range(num_specific)),
            *(["shared"] * num_shared),
        )
        self.specific = ExpertBank(dim, hidden, num_own, dropout=dropout, divided=True)
        self.shared = (
            ExpertBank(dim, hidden, num_shared, dropout=dropout) if num_shared else None
        )
        visible = tuple(
            tuple(
                place
                for place, owner in enumerate(self.owners)
                if owner in (name, "shared") or name == "shared"
            )
            for name in self.names
        )
        self.gates = GateBank(dim, visible, num_experts=len(self.owners))

    def forward(self, name: str, h_BSD: Rows, shared_BSD: Rows) -> GateLevel:
        expert_BSEH: Tensor = self.specific(_first(h_BSD, self.num_tasks))
        if self.shared is not None:
            shared_BSEH: Tensor = self.shared(shared_BSD)
            expert_BSEH = expert_BSEH.expand(-1, shared_BSEH.shape[1], -1, -1)
            expert_BSEH = torch.cat([expert_BSEH, shared_BSEH], dim=2)
        weight_BTE: Tensor = self.gates(_first(h_BSD, len(self.names)))
        return GateLevel(name, self.owners, self.names, weight_BTE, expert_BSEH)


def _first(h_BSD: Rows, count: int) -> Rows:
    """Give the first branches; of split rows there is one, for all who read it."""
    return h_BSD if isinstance(h_BSD, SplitRows) else h_BSD[:, :count]
