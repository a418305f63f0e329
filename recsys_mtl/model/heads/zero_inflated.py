"""How much, where most rows have nothing: revenue, lifetime value."""

import math
from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recsys_mtl.model.heads._base import AbstractHead
from recsys_mtl.model.heads._width import LARGEST_EXPONENT, log_width, width_logit

__all__ = ["ZeroInflatedLogNormalHead"]


@final
class ZeroInflatedLogNormalHead(AbstractHead):
    r"""A probability of an amount above 0, and a log-normal amount then.

    Logits give the probability :math:`p`, the mean :math:`\mu` of :math:`\log y` over
    amounts above 0, and, squashed between two bounds, the logarithm of its standard
    deviation :math:`\sigma`. Loss, in nats,

    .. math:: -\log(1 - p) \;[y = 0], \qquad
        -\log p + \log\sigma + (\log y - \mu)^2 / 2\sigma^2
        + \tfrac12 \log 2\pi \;[y > 0];

    prediction :math:`p\, e^{\mu + \sigma^2 / 2}`. Detail ``prob_positive`` is p.

    Args:
        positive_rate: Share of training labels above 0.
        log_mean: Mean of ``log(y)`` over training labels above 0.
        log_std: Standard deviation of it.

    Shape:
        - logits_BC: ``(batch, 3)``
        - label_B: ``(batch,)``, each >= 0
        - loss, predict: ``(batch,)``

    Deviations:
        - The paper's width is a softplus; here its logarithm stays between bounds, so
          that no exact hit dominates the loss and no mean explodes.
        - The term ``log y`` of the log-normal likelihood depends on no logit and is
          left out.

    References:
        Wang, Liu and Miao, "A Deep Probabilistic Model for Customer Lifetime Value
        Prediction", 2019, arXiv:1912.07753.

    Example:
        >>> import torch
        >>> head = ZeroInflatedLogNormalHead(0.5, log_mean=0.0, log_std=1.0)
        >>> logits_C = torch.tensor(head.initial_logits)
        >>> head.predict(logits_C[None])  # exp(1/2) / 2
        tensor([0.8244])
    """

    num_logits = 3

    def __init__(self, positive_rate: float, log_mean: float, log_std: float) -> None:
        # All labels alike would start at an infinite logit and never learn otherwise.
        self.positive_rate = min(max(positive_rate, _RAREST), 1.0 - _RAREST)
        self.log_mean = log_mean
        self.log_std = log_std

    @property
    def initial_logits(self) -> tuple[float, ...]:
        odds = self.positive_rate / (1.0 - self.positive_rate)
        return math.log(odds), self.log_mean, width_logit(self.log_std)

    def loss(
        self,
        logits_BC: Float[Tensor, "batch logits"],
        label_B: Float[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        prob_logit_B, mu_B, width_B = logits_BC.unbind(1)
        positive_B = label_B > 0
        # Replaced before the logarithm: 0 * infinity is NaN in the backward pass.
        z_B = label_B.where(positive_B, 1.0).log()
        log_sigma_B = log_width(width_B)
        deviation_B = (z_B - mu_B) * (-log_sigma_B).exp()
        amount_B = log_sigma_B + deviation_B.square() / 2 + math.log(2 * math.pi) / 2
        whether_B = F.binary_cross_entropy_with_logits(
            prob_logit_B, positive_B.float(), reduction="none"
        )
        return whether_B + amount_B.where(positive_B, 0.0)

    def predict(
        self, logits_BC: Float[Tensor, "batch logits"]
    ) -> Float[Tensor, " batch"]:
        prob_logit_B, mu_B, width_B = logits_BC.unbind(1)
        exponent_B = mu_B + (2 * log_width(width_B)).exp() / 2
        return prob_logit_B.sigmoid() * exponent_B.clamp(max=LARGEST_EXPONENT).exp()

    def details(
        self, logits_BC: Float[Tensor, "batch logits"]
    ) -> dict[str, Float[Tensor, " batch"]]:
        return {"prob_positive": logits_BC[:, 0].sigmoid()}


_RAREST = 1e-6
