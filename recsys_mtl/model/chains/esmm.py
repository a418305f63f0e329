"""Entire space multi-task model (ESMM)."""

import math
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recsys_mtl.model.chains._base import AbstractChain, Logits

__all__ = ["ESMM"]


@final
class ESMM(AbstractChain):
    r"""Multiplies the probabilities of steps, each given the one before.

    With :math:`a_j` what the tower of step :math:`j` says, the probability of step
    :math:`k` over all impressions is :math:`p_k = \prod_{j \le k} \sigma(a_j)`. The
    loss of a step is that of :math:`p_k`, on all rows; its probability given the step
    before has no loss of its own.

    Args:
        steps: Places of the tasks, in the order in which they happen; two or more.

    Shape:
        - logits: for each step ``(batch, 1)``
        - compose: the same shapes, as log-odds of :math:`p_k`

    Deviations:
        Any number of steps; the paper has impression, click and conversion. Embeddings
        are pooled and shared as the recipe says. The arithmetic is that of the paper,
        in logarithms, so that log-odds stay finite:
        :math:`1 - p_k = \sum_{j \le k} p_{j-1} (1 - \sigma(a_j))`.

    References:
        Ma et al., "Entire Space Multi-Task Model: An Effective Approach for Estimating
        Post-Click Conversion Rate", SIGIR 2018, doi:10.1145/3209978.3210104.

    Example:
        >>> click, order = ESMM((0, 1)).compose((torch.zeros(1, 1), torch.zeros(1, 1)))
        >>> click.sigmoid(), order.sigmoid()
        (tensor([[0.5000]]), tensor([[0.2500]]))
    """

    def __init__(self, steps: tuple[int, ...]) -> None:
        super().__init__()
        self.steps = steps

    def transfer(
        self, h_BTH: Float[Tensor, "batch tasks hidden"]
    ) -> Float[Tensor, "batch tasks hidden"]:
        return h_BTH

    def compose(self, logits: Logits) -> Logits:
        said_BK = torch.cat([logits[t] for t in self.steps], dim=1)
        reached_BK = F.logsigmoid(said_BK).cumsum(1)
        before_BK = F.pad(reached_BK[:, :-1], (1, 0))
        missed_BK = (before_BK + F.logsigmoid(-said_BK)).logcumsumexp(1)
        composed = list(logits)
        logit_BK = reached_BK - missed_BK
        for t, logit_B in zip(self.steps, logit_BK.unbind(1), strict=True):
            composed[t] = logit_B[:, None]
        return tuple(composed)

    def start(self, logits: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
        started = [tuple(task) for task in logits]
        before = 1.0
        for t in self.steps:
            rate = 1.0 / (1.0 + math.exp(-logits[t][0]))
            # Labels may have a step more often than the one before it; no product can.
            given = min(rate / before, _SUREST)
            started[t] = (math.log(given / (1.0 - given)),)
            before *= given
        return started

    def penalty(self, logits: Logits) -> Float[Tensor, ""]:
        return logits[0].new_zeros(())


_SUREST = 0.99  # a start nearer to 1 has hardly a gradient
