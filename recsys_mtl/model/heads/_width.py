"""A logit that stands for the width of a log-normal distribution, within bounds."""

import math

from jaxtyping import Float
from torch import Tensor

__all__ = ["LARGEST_EXPONENT", "log_width", "width_logit"]

# Bounds of log(sigma). Below, a few exact hits would dominate the loss; above, the mean
# exp(sigma^2 / 2) explodes while the rows say nothing of such a tail.
_LEAST, _MOST = -4.0, 1.5
_MARGIN = 0.01  # the start stays off the bounds, where the gradient vanishes

LARGEST_EXPONENT = 80.0
"""Its exponential is finite in float32."""


def log_width(logit_B: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Logarithm of the standard deviation that a logit stands for."""
    return _LEAST + (_MOST - _LEAST) * logit_B.sigmoid()


def width_logit(std: float) -> float:
    """Logit of a standard deviation, or of the nearest one off the bounds."""
    share = (math.log(max(std, 1e-30)) - _LEAST) / (_MOST - _LEAST)
    share = min(max(share, _MARGIN), 1.0 - _MARGIN)
    return math.log(share / (1.0 - share))
