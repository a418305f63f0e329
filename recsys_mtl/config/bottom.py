"""What every task reads of a row: one spec per bottom, told apart by ``kind``."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from recsys_mtl.config._base import Rate, Spec, Widths

__all__ = ["APEMSpec", "BottomSpec", "DTRNSpec", "FlatSpec"]


class FlatSpec(Spec):
    """All fields and numbers side by side, one input for all tasks."""

    kind: Literal["flat"] = "flat"
    dropout: Rate = 0.0


class DTRNSpec(Spec):
    """Every task reads histories and weighs fields in its own way."""

    kind: Literal["dtrn"]
    width: PositiveInt = Field(32, description="of an event, while histories are read")
    num_heads: PositiveInt = Field(2, description="must divide width")
    num_layers: PositiveInt = 1
    code_dim: PositiveInt = Field(
        8, description="numbers that tell tasks apart, and as many histories"
    )
    hidden: Widths = Field((16, 64), description="layers that read those numbers")
    reduction: PositiveInt = Field(
        4, description="fields that share one number where fields are weighed"
    )
    dropout: Rate = 0.0

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "DTRNSpec":
        if self.width % self.num_heads:
            raise ValueError(
                f"num_heads must divide width, got {self.num_heads} and {self.width}"
            )
        return self


class APEMSpec(Spec):
    """Fields read each other in groups; every task selects patterns of them."""

    kind: Literal["apem"]
    num_layers: PositiveInt = 1
    num_groups: PositiveInt = 4
    num_inducing: PositiveInt = Field(
        4, description="vectors of a group, through which fields read each other"
    )
    num_indicators: PositiveInt = Field(
        8, description="patterns that a task selects, each as wide as an embedding"
    )


BottomSpec = Annotated[FlatSpec | DTRNSpec | APEMSpec, Field(discriminator="kind")]
