"""What every chain promises."""

import abc
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["AbstractChain", "Logits"]

Logits = tuple[Float[Tensor, "batch _"], ...]
"""For each task ``logits_BC``."""


class AbstractChain(nn.Module, abc.ABC):
    """Ties tasks of which each is a step after another.

    It acts at two places, before the towers and after them, and may add to the loss.
    Tasks outside the chain pass through untouched.
    """

    @property
    def transfers(self) -> bool:
        """Whether ``transfer`` changes anything."""
        return False

    @abc.abstractmethod
    def transfer(
        self, h_BTH: Float[Tensor, "batch tasks hidden"]
    ) -> Float[Tensor, "batch tasks hidden"]:
        """Let a step's hidden vector read that of the step before."""

    @abc.abstractmethod
    def compose(self, logits: Logits) -> Logits:
        """Turn what the towers say into logits over the entire space."""

    @abc.abstractmethod
    def start(self, logits: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
        """Undo ``compose`` for one row: what towers must say for it to give these."""

    @abc.abstractmethod
    def penalty(self, logits: Logits) -> Float[Tensor, ""]:
        """Give the mean penalty of composed logits, 0 for none."""
