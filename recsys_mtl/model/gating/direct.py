"""No experts: towers read the bottom."""

from typing import final

from recsys_mtl.model.gating._base import AbstractGating, GatingTrace
from recsys_mtl.model.split_rows import Rows, SplitRows

__all__ = ["Direct"]


@final
class Direct(AbstractGating):
    """Hands the bottom to every task unchanged; for towers that are whole models.

    Args:
        dim: Width of the input, and of the output.
        num_tasks: Number of tasks.

    Shape:
        - x_BSD: ``(batch, 1 or tasks, dim)``
        - return: ``(batch, tasks, dim)``

    Example:
        >>> import torch
        >>> Direct(dim=4, num_tasks=2)(torch.randn(5, 1, 4)).shape
        torch.Size([5, 2, 4])
    """

    def __init__(self, dim: int, *, num_tasks: int) -> None:
        super().__init__()
        self.out_dim = dim
        self.num_tasks = num_tasks

    def trace(self, x_BSD: Rows) -> GatingTrace:
        if isinstance(x_BSD, SplitRows):
            return GatingTrace(x_BSD, ())
        return GatingTrace(x_BSD.expand(-1, self.num_tasks, -1), ())
