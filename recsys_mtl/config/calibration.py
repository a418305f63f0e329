"""How predicted probabilities are set right after training."""

from typing import Annotated, Literal

from pydantic import Field

from recsys_mtl.config._base import Fraction, Spec

__all__ = [
    "CalibrationSpec",
    "IsotonicSpec",
    "NegativeSampling",
    "NoCalibration",
    "PlattSpec",
    "TemperatureSpec",
]


class NoCalibration(Spec):
    """Probabilities stay as the network predicts them."""

    kind: Literal["none"] = "none"


class PlattSpec(Spec):
    """``sigmoid(slope * logit + intercept)``, fitted on the validation rows."""

    kind: Literal["platt"]


class TemperatureSpec(Spec):
    """``sigmoid(logit / temperature)``, fitted on the validation rows."""

    kind: Literal["temperature"]


class IsotonicSpec(Spec):
    """The rising step function nearest to the validation labels.

    It makes ties, so that ranking metrics may change a little.
    """

    kind: Literal["isotonic"]


CalibrationSpec = Annotated[
    NoCalibration | PlattSpec | TemperatureSpec | IsotonicSpec,
    Field(discriminator="kind"),
]


class NegativeSampling(Spec):
    """Negatives that were left out before the recipe read its rows.

    Predictions are corrected to what they would be had all been kept.
    """

    rate: Fraction = Field(description="share of the negatives that were kept")
    splits: Literal["train", "all"] = Field(
        description="where negatives were left out; with all, metrics compare "
        "predictions before the correction with the rows as they are"
    )
