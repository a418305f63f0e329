"""One number to sort by, from the predictions of all tasks."""

from typing import Annotated, Literal

from pydantic import Field

from recsys_mtl.config._base import Name, Spec

__all__ = ["ProductScore", "ScoreSpec", "SumScore"]


Weight = Annotated[float, Field(ge=-1e6, le=1e6)]
"""Far beyond any use, and far from where a sum of predictions overflows."""


class SumScore(Spec):
    """``sum_t weight_t * prediction_t``."""

    kind: Literal["sum"] = "sum"
    weights: Annotated[dict[Name, Weight], Field(min_length=1)] = Field(
        description="by task; those not named count for nothing"
    )


class ProductScore(Spec):
    """``prod_t prediction_t ** weight_t``, computed in logarithms."""

    kind: Literal["product"]
    weights: Annotated[dict[Name, Weight], Field(min_length=1)] = Field(
        description="by task; those not named count for nothing"
    )


ScoreSpec = Annotated[SumScore | ProductScore, Field(discriminator="kind")]
