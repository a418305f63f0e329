"""What every gating promises."""

import abc

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["AbstractGating"]


class AbstractGating(nn.Module, abc.ABC):
    """Turns bottom representations into one hidden vector per task.

    A gating owns its experts and its gates. Its input has a *sharing* axis ``S``:
    1 where the tasks share one bottom, ``T`` where every task has its own.

    Attributes:
        out_dim: Width of the output.
    """

    out_dim: int

    @abc.abstractmethod
    def forward(
        self, x_BSD: Float[Tensor, "batch sharing dim"]
    ) -> Float[Tensor, "batch tasks hidden"]:
        """Mix the experts for each task."""
