"""No chain: every task stands alone."""

from collections.abc import Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor

from recsys_mtl.model.chains._base import AbstractChain, Logits

__all__ = ["Independent"]


@final
class Independent(AbstractChain):
    """Passes everything through.

    Example:
        >>> import torch
        >>> Independent().penalty((torch.zeros(2, 1),))
        tensor(0.)
    """

    def transfer(
        self, h_BTH: Float[Tensor, "batch tasks hidden"]
    ) -> Float[Tensor, "batch tasks hidden"]:
        return h_BTH

    def compose(self, logits: Logits) -> Logits:
        return logits

    def start(self, logits: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
        return [tuple(task) for task in logits]

    def penalty(self, logits: Logits) -> Float[Tensor, ""]:
        return logits[0].new_zeros(())
