"""What every tower promises."""

import abc
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from recsys_mtl.model.split_rows import SplitRows

__all__ = ["AbstractTower"]


class AbstractTower(nn.Module, abc.ABC):
    """Turns one hidden vector per task into that task's logits."""

    @abc.abstractmethod
    def forward(
        self,
        h_BTH: Float[Tensor, "batch tasks hidden"] | SplitRows,
        contexts: tuple[Float[Tensor, "batch _ _"], ...] = (),
    ) -> tuple[Float[Tensor, "batch _"], ...]:
        """Give ``logits_BC`` for each task; the number of logits may differ.

        Args:
            h_BTH: One vector a task; in scoring it may be split rows that all tasks
                share.
            contexts: Embeddings from tables of the tower's own, as in ``Embedded``.
        """

    @abc.abstractmethod
    def start_at(self, logits: Sequence[Sequence[float]]) -> None:
        """Set the last biases: what an untrained tower says of every row, on average.

        Args:
            logits: For each task, one number a logit.
        """
