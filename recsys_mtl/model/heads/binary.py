"""Did it happen or not: clicks, conversions, likes."""

import math
from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recsys_mtl.model.heads._base import AbstractHead

__all__ = ["BinaryHead"]


@final
class BinaryHead(AbstractHead):
    """Bernoulli likelihood on one logit, in nats.

    Args:
        base_rate: Share of positives in the training labels.

    Shape:
        - logits_BC: ``(batch, 1)``
        - label_B: ``(batch,)``, each 0 or 1
        - loss, predict: ``(batch,)``

    Example:
        >>> import torch
        >>> head = BinaryHead(base_rate=0.5)
        >>> head.predict(torch.zeros(2, 1))
        tensor([0.5000, 0.5000])
    """

    num_logits = 1

    def __init__(self, base_rate: float) -> None:
        # All labels alike would start at an infinite logit and never learn otherwise.
        self.base_rate = min(max(base_rate, _RAREST), 1.0 - _RAREST)

    @property
    def initial_logits(self) -> tuple[float, ...]:
        return (math.log(self.base_rate / (1.0 - self.base_rate)),)

    def loss(
        self,
        logits_BC: Float[Tensor, "batch logits"],
        label_B: Float[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        return F.binary_cross_entropy_with_logits(
            logits_BC[:, 0], label_B, reduction="none"
        )

    def predict(
        self, logits_BC: Float[Tensor, "batch logits"]
    ) -> Float[Tensor, " batch"]:
        return logits_BC[:, 0].sigmoid()


_RAREST = 1e-6
