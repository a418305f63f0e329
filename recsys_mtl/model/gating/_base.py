"""What every gating promises."""

import abc
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recsys_mtl.model.split_rows import Rows, SplitRows

__all__ = ["AbstractGating", "GateLevel", "GatingTrace", "mix", "task_gates"]


class GateLevel(NamedTuple):
    """What the experts of one level said, and how its gates weighed them.

    Attributes:
        name: Of the level; unique in its gating.
        experts: Owner of each expert: ``shared``, ``task:1`` or ``group:watch``.
        gates: Reader of each mixture: ``task:0``, ``group:watch`` or ``shared``.
        weight_BTE: Weight of each expert in each mixture, gates in place of tasks; 0
            where a gate does not see an expert.
        expert_BSEH: Outputs of the experts.
    """

    name: str
    experts: tuple[str, ...]
    gates: tuple[str, ...]
    weight_BTE: Float[Tensor, "batch gates experts"]
    expert_BSEH: Float[Tensor, "batch sharing experts hidden"]


class GatingTrace(NamedTuple):
    """A gating's output and how it came about.

    Attributes:
        hidden_BTH: One vector a task.
        levels: From the input to the output; none without experts.
    """

    hidden_BTH: Float[Tensor, "batch tasks hidden"] | SplitRows
    levels: tuple[GateLevel, ...]


class AbstractGating(nn.Module, abc.ABC):
    """Turns bottom representations into one hidden vector per task.

    A gating owns its experts and its gates. Its input has a *sharing* axis ``S``:
    1 where the tasks share one bottom, ``T`` where every task has its own. In scoring
    it may be ``SplitRows``: then there is one bottom, and the output may be them too,
    the same for all tasks.

    Attributes:
        out_dim: Width of the output.
    """

    out_dim: int

    @abc.abstractmethod
    def trace(self, x_BSD: Rows) -> GatingTrace:
        """Mix the experts for each task, and show how."""

    def forward(self, x_BSD: Rows) -> Float[Tensor, "batch tasks hidden"] | SplitRows:
        """Mix the experts for each task."""
        return self.trace(x_BSD).hidden_BTH


def mix(
    weight_BTE: Float[Tensor, "batch gates experts"],
    expert_BSEH: Float[Tensor, "batch sharing experts hidden"],
) -> Float[Tensor, "batch gates hidden"]:
    """Sum the experts as weighed by each gate.

    Args:
        weight_BTE: Weights.
        expert_BSEH: Outputs of the experts; for all gates, or for each its own.
    """
    if expert_BSEH.shape[1] == 1:
        # On a CPU, forward and backward: 2 to 7 times faster than adding up expert by
        # expert. Only where gates x experts x hidden is below 400, which few recipes
        # have, PyTorch takes a loop of its own and is 2 to 5 times slower.
        return torch.bmm(weight_BTE, expert_BSEH.squeeze(1))
    return torch.einsum("bte,bteh->bth", weight_BTE, expert_BSEH)


def task_gates(num_tasks: int) -> tuple[str, ...]:
    """Name the gates of a level that has one gate a task.

    Example:
        >>> task_gates(2)
        ('task:0', 'task:1')
    """
    return tuple(f"task:{t}" for t in range(num_tasks))
