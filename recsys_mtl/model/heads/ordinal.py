"""Which of several ordered levels: ratings, stages of a funnel."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recsys_mtl.model.heads._base import AbstractHead

__all__ = ["OrdinalHead"]


@final
class OrdinalHead(AbstractHead):
    r"""Cumulative logits in falling order, one fewer than there are levels.

    :math:`P(y > k) = \sigma(c_k)` with :math:`c_0 = x_0` and
    :math:`c_k = c_{k-1} - \log(1 + e^{x_k})`, so the order of the levels holds whatever
    the logits :math:`x` are. The likelihood of a level in the middle,
    :math:`\sigma(c_{k-1}) - \sigma(c_k)`, is the product
    :math:`\sigma(c_{k-1})\, \sigma(-c_k)\, \sigma(x_k)`, whose logarithm is exact at
    any logit. Prediction: the expected level :math:`\sum_k P(y > k)`. Details
    ``prob@LEVEL``: the probability of each level.

    Args:
        level_rows: Training labels of each level, from the lowest.
        names: Of the levels; their numbers from 0 if left out.

    Shape:
        - logits_BC: ``(batch, levels - 1)``
        - label_B: ``(batch,)``, numbers of levels from 0
        - loss, predict: ``(batch,)``
        - curve: ``(batch, levels - 1)``

    Deviations:
        - McCullagh's cutpoints are the same for all rows (proportional odds). A head
          has no parameters, so here the distances between them are logits of the tower
          and may differ from row to row; proportional odds are what remains where only
          ``x_0`` depends on the row.

    References:
        McCullagh, "Regression Models for Ordinal Data", Journal of the Royal
        Statistical Society B 1980, doi:10.1111/j.2517-6161.1980.tb01109.x.

    Example:
        >>> head = OrdinalHead((1, 2, 1))
        >>> head.predict(torch.tensor(head.initial_logits)[None])
        tensor([1.])
    """

    def __init__(
        self, level_rows: Sequence[int], names: tuple[str, ...] | None = None
    ) -> None:
        self.num_logits = len(level_rows) - 1
        self.names = names or tuple(str(k) for k in range(len(level_rows)))
        # A level without rows would start at an infinite logit and never learn.
        rows = [max(count, _FEWEST) for count in level_rows]
        above = [sum(rows[k + 1 :]) / sum(rows) for k in range(self.num_logits)]
        self._cumulative = [math.log(share / (1.0 - share)) for share in above]

    @property
    def initial_logits(self) -> tuple[float, ...]:
        # The inverse of softplus.
        gaps = (
            math.log(math.expm1(upper - lower))
            for upper, lower in pairwise(self._cumulative)
        )
        return (self._cumulative[0], *gaps)

    def loss(
        self,
        logits_BC: Float[Tensor, "batch logits"],
        label_B: Float[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        cumulative_BC = self._falling(logits_BC)
        level_B1 = label_B.long()[:, None]
        above_B1 = F.logsigmoid(cumulative_BC).gather(1, (level_B1 - 1).clamp(min=0))
        upto_B1 = F.logsigmoid(-cumulative_BC).gather(
            1, level_B1.clamp(max=self.num_logits - 1)
        )
        gap_B1 = F.logsigmoid(logits_BC).gather(
            1, level_B1.clamp(1, max(self.num_logits - 1, 1)) % self.num_logits
        )
        lowest_B1, highest_B1 = level_B1 == 0, level_B1 == self.num_logits
        log_prob_B1 = (
            above_B1.where(~lowest_B1, 0.0)
            + upto_B1.where(~highest_B1, 0.0)
            + gap_B1.where(~lowest_B1 & ~highest_B1, 0.0)
        )
        return -log_prob_B1[:, 0]

    def predict(
        self, logits_BC: Float[Tensor, "batch logits"]
    ) -> Float[Tensor, " batch"]:
        return self.curve(logits_BC).sum(1)

    @property
    def points(self) -> tuple[float, ...]:
        """Every level but the highest."""
        return tuple(float(k) for k in range(self.num_logits))

    def curve(
        self, logits_BC: Float[Tensor, "batch logits"]
    ) -> Float[Tensor, "batch points"]:
        return self._falling(logits_BC).sigmoid()

    def details(
        self, logits_BC: Float[Tensor, "batch logits"]
    ) -> dict[str, Float[Tensor, " batch"]]:
        above_BC = F.pad(F.pad(self.curve(logits_BC), (1, 0), value=1.0), (0, 1))
        prob_BL = above_BC[:, :-1] - above_BC[:, 1:]
        return {
            f"prob@{name}": prob_B
            for name, prob_B in zip(self.names, prob_BL.unbind(1), strict=True)
        }

    @staticmethod
    def _falling(
        logits_BC: Float[Tensor, "batch logits"],
    ) -> Float[Tensor, "batch logits"]:
        gap_BC = F.softplus(logits_BC[:, 1:])
        return torch.cat([logits_BC[:, :1], -gap_BC], dim=1).cumsum(1)


_FEWEST = 1e-3
