"""How tasks that follow one another are tied: one spec per chain, by ``kind``."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from recsys_mtl.config._base import Name, Rate, Spec

__all__ = ["AITMSpec", "ChainSpec", "ESMMSpec", "IndependentSpec"]

_Steps = Annotated[
    tuple[Name, ...],
    Field(min_length=2, description="binary tasks, in the order in which they happen"),
]


class IndependentSpec(Spec):
    """No task reads another."""

    kind: Literal["independent"] = "independent"


class ESMMSpec(Spec):
    """A step's probability over all rows is the product of those up to it."""

    kind: Literal["esmm"]
    steps: _Steps


class AITMSpec(Spec):
    """A step reads what is known of the one before, and is held to be no likelier."""

    kind: Literal["aitm"]
    steps: _Steps
    dropout: Rate = 0.0
    calibrator_weight: NonNegativeFloat = Field(
        0.6,
        description="factor of the mean by which a step is thought likelier than the "
        "one before; 0: no such penalty",
    )


ChainSpec = Annotated[
    IndependentSpec | ESMMSpec | AITMSpec, Field(discriminator="kind")
]
