"""Functions of a probability that never fall, as data that a bundle can hold."""

from itertools import pairwise
from typing import Annotated, Literal, final

import numpy as np
from jaxtyping import Float
from pydantic import Field, PositiveFloat, model_validator

from recsys_mtl.config._base import Fraction
from recsys_mtl.features.schema import Artifact

__all__ = [
    "Calibrator",
    "IsotonicCalibrator",
    "PlattCalibrator",
    "SamplingCorrection",
    "TemperatureCalibrator",
    "logit",
    "sigmoid",
]

_Probs = Float[np.ndarray, " batch"]

# Networks predict in float32, where 1 - 2**-24 is the last number below 1: the ends
# stay apart from their neighbours and have finite logits.
_LOW, _HIGH = 1e-38, 1.0 - 2.0**-25


@final
class SamplingCorrection(Artifact):
    r"""Undo the sampling of negatives: :math:`p / (p + (1 - p) / rate)`.

    Attributes:
        rate: Share of the negatives that were kept.
        splits: Where negatives were left out. With ``all``, the rows that metrics are
            measured on are sampled too, and the correction stays out of them.

    References:
        He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook",
        ADKDD 2014, doi:10.1145/2648584.2648589, section 6.3.

    Example:
        >>> SamplingCorrection(rate=0.1, splits="train").apply(np.array([0.5, 1.0]))
        array([0.09090909, 1.        ])
    """

    kind: Literal["sampling"] = "sampling"
    rate: Fraction
    splits: Literal["train", "all"]

    def apply(self, prob_B: _Probs) -> _Probs:
        return np.asarray(self.rate * prob_B / (self.rate * prob_B + (1 - prob_B)))


@final
class PlattCalibrator(Artifact):
    """``sigmoid(slope * logit + intercept)``.

    References:
        Platt, "Probabilistic Outputs for Support Vector Machines", Advances in Large
        Margin Classifiers 1999.
    """

    kind: Literal["platt"] = "platt"
    slope: PositiveFloat
    intercept: float

    def apply(self, prob_B: _Probs) -> _Probs:
        return sigmoid(self.slope * logit(prob_B) + self.intercept)


@final
class TemperatureCalibrator(Artifact):
    """``sigmoid(logit / temperature)``: a half stays a half.

    References:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
        arXiv:1706.04599.
    """

    kind: Literal["temperature"] = "temperature"
    temperature: PositiveFloat

    def apply(self, prob_B: _Probs) -> _Probs:
        return sigmoid(logit(prob_B) / self.temperature)


@final
class IsotonicCalibrator(Artifact):
    """Straight lines through rising points, level before the first and after the last.

    Attributes:
        predictions: Predictions at the points, rising.
        rates: What they stand for, never falling.

    References:
        Zadrozny & Elkan, "Transforming Classifier Scores into Accurate Multiclass
        Probability Estimates", KDD 2002, doi:10.1145/775047.775151.
    """

    kind: Literal["isotonic"] = "isotonic"
    predictions: Annotated[tuple[float, ...], Field(min_length=1)]
    rates: tuple[float, ...]

    @model_validator(mode="after")
    def _rise(self) -> "IsotonicCalibrator":
        if len(self.predictions) != len(self.rates):
            raise ValueError(
                f"must have as many rates as predictions, got {len(self.rates)} and "
                f"{len(self.predictions)}"
            )
        if any(b <= a for a, b in pairwise(self.predictions)):
            raise ValueError("predictions must rise")
        if any(b < a for a, b in pairwise(self.rates)):
            raise ValueError("rates must not fall")
        return self

    def apply(self, prob_B: _Probs) -> _Probs:
        return np.asarray(np.interp(prob_B, self.predictions, self.rates))


Calibrator = Annotated[
    SamplingCorrection | PlattCalibrator | TemperatureCalibrator | IsotonicCalibrator,
    Field(discriminator="kind"),
]


def logit(prob_B: _Probs) -> _Probs:
    """Compute ``log(p / (1 - p))``, finite also at 0 and 1."""
    inside_B = np.clip(prob_B.astype(np.float64), _LOW, _HIGH)
    return np.log(inside_B) - np.log1p(-inside_B)


def sigmoid(logit_B: _Probs) -> _Probs:
    """Compute ``1 / (1 + exp(-x))`` without overflow."""
    small_B = np.exp(-np.abs(logit_B))
    return np.asarray(np.where(logit_B >= 0, 1.0, small_B) / (1.0 + small_B))
