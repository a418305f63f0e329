"""How much: watch time, order amount."""

import math
from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recsys_mtl.model.heads._base import AbstractHead
from recsys_mtl.model.heads._width import LARGEST_EXPONENT, log_width, width_logit

__all__ = ["LogNormalHead", "SquaredHead"]


@final
class LogNormalHead(AbstractHead):
    r"""Normal likelihood of :math:`z = \log(1 + y)`, in nats.

    Logits give its mean :math:`\mu` and, squashed between two bounds, the logarithm of
    its standard deviation :math:`\sigma`. Loss
    :math:`\log\sigma + (z - \mu)^2 / 2\sigma^2 + \frac12 \log 2\pi`; prediction
    :math:`\max(0, e^{\mu + \sigma^2 / 2} - 1)`, the mean of the amount, not its median.

    Args:
        log_mean: Mean of z over the training labels.
        log_std: Standard deviation of z over the training labels.

    Shape:
        - logits_BC: ``(batch, 2)``
        - label_B: ``(batch,)``, each >= 0
        - loss, predict: ``(batch,)``

    Example:
        >>> import torch
        >>> head = LogNormalHead(log_mean=0.0, log_std=1.0)
        >>> logits_C = torch.tensor(head.initial_logits)
        >>> head.predict(logits_C[None])  # exp(1/2) - 1
        tensor([0.6487])
    """

    num_logits = 2

    def __init__(self, log_mean: float, log_std: float) -> None:
        self.log_mean = log_mean
        self.log_std = log_std

    @property
    def initial_logits(self) -> tuple[float, ...]:
        return self.log_mean, width_logit(self.log_std)

    def loss(
        self,
        logits_BC: Float[Tensor, "batch logits"],
        label_B: Float[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        log_sigma_B = log_width(logits_BC[:, 1])
        deviation_B = (label_B.log1p() - logits_BC[:, 0]) * (-log_sigma_B).exp()
        return log_sigma_B + deviation_B.square() / 2 + math.log(2 * math.pi) / 2

    def predict(
        self, logits_BC: Float[Tensor, "batch logits"]
    ) -> Float[Tensor, " batch"]:
        exponent_B = logits_BC[:, 0] + (2 * log_width(logits_BC[:, 1])).exp() / 2
        return exponent_B.clamp(0.0, LARGEST_EXPONENT).expm1()


@final
class SquaredHead(AbstractHead):
    r"""Squared error of an amount in units of its training mean :math:`m`.

    One logit :math:`a`; prediction :math:`\hat y = m \log(1 + e^a)`, so never below 0;
    loss :math:`((y - \hat y) / m)^2 / 2`.

    Args:
        mean: Mean of the training labels; 1 is taken for a mean of 0.

    Shape:
        - logits_BC: ``(batch, 1)``
        - label_B: ``(batch,)``, each >= 0
        - loss, predict: ``(batch,)``

    Example:
        >>> import torch
        >>> head = SquaredHead(mean=30.0)
        >>> logits_C = torch.tensor(head.initial_logits)
        >>> head.predict(logits_C[None])
        tensor([30.])
    """

    num_logits = 1

    def __init__(self, mean: float) -> None:
        self.mean = mean if mean > 0.0 else 1.0

    @property
    def initial_logits(self) -> tuple[float, ...]:
        return (math.log(math.expm1(1.0)),)

    def loss(
        self,
        logits_BC: Float[Tensor, "batch logits"],
        label_B: Float[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        return (label_B / self.mean - F.softplus(logits_BC[:, 0])).square() / 2

    def predict(
        self, logits_BC: Float[Tensor, "batch logits"]
    ) -> Float[Tensor, " batch"]:
        return F.softplus(logits_BC[:, 0]) * self.mean
