"""From a task's hidden vector to its logits: one spec per tower, by ``kind``."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from recsys_mtl.config._base import Rate, Spec, Widths

__all__ = [
    "DCNV2Spec",
    "FinalMLPSpec",
    "MLPTowerSpec",
    "StreamSpec",
    "TowerSpec",
    "WideDeepSpec",
]

_BatchNorm = Annotated[
    bool, Field(description="standardise hidden layers over the rows of a batch")
]
_Columns = tuple[str, ...]


class MLPTowerSpec(Spec):
    """One MLP per task, then the task's logits."""

    kind: Literal["mlp"] = "mlp"
    hidden: Widths = (64,)
    dropout: Rate = 0.0
    batch_norm: _BatchNorm = False


class StreamSpec(Spec):
    """One of the two MLPs of FinalMLP, and what its gate goes by."""

    hidden: Widths = (400,)
    dropout: Rate = 0.0
    context: _Columns = Field(
        (),
        description="columns that the gate reads, through tables of their own; one "
        "learned vector if left out",
    )


class FinalMLPSpec(Spec):
    """Two MLPs over gated inputs, and a bilinear form of what they say."""

    kind: Literal["final_mlp"]
    first: StreamSpec = StreamSpec()
    second: StreamSpec = StreamSpec()
    num_heads: NonNegativeInt = Field(
        1, description="parts of the bilinear form; 0 leaves it out"
    )
    batch_norm: _BatchNorm = True
    feature_selection: bool = Field(True, description="weigh the input of each MLP")
    gate_hidden: Widths = Field((800,), description="hidden layers of the gates")
    context_init_std: NonNegativeFloat = Field(
        0.0,
        description="normal start of the learned vector of a gate without context; at "
        "0, as published, all that such a gate learns is one constant an entry",
    )

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> "FinalMLPSpec":
        widths = (self.first.hidden[-1], self.second.hidden[-1])
        if self.num_heads and any(width % self.num_heads for width in widths):
            raise ValueError(
                "num_heads: must divide the last widths of both streams, got "
                f"{self.num_heads} for {widths[0]} and {widths[1]}"
            )
        if not self.feature_selection:
            idle = [
                *(
                    f"{name}.context"
                    for name in _STREAMS
                    if getattr(self, name).context
                ),
                *(
                    name
                    for name in ("gate_hidden", "context_init_std")
                    if getattr(self, name) != type(self).model_fields[name].default
                ),
            ]
            if idle:
                raise ValueError(
                    f"{idle[0]}: has no effect, for feature_selection is false; take "
                    "one of the two out"
                )
        if self.context_init_std and self.first.context and self.second.context:
            raise ValueError(
                "context_init_std: has no effect, for both streams have a context; "
                "take it out"
            )
        return self


_STREAMS = ("first", "second")


class DCNV2Spec(Spec):
    """Layers that cross the input with itself, and an MLP."""

    kind: Literal["dcn_v2"]
    num_layers: PositiveInt = Field(2, description="cross layers")
    hidden: Widths = (400,)
    structure: Literal["parallel", "stacked"] = Field(
        "parallel", description="the MLP beside the crosses, or on top of them"
    )
    dropout: Rate = 0.0
    batch_norm: _BatchNorm = False


class WideDeepSpec(Spec):
    """A linear model of columns, through tables of its own, beside an MLP."""

    kind: Literal["wide_deep"]
    wide: _Columns = Field(
        (), description="columns of the linear model; all columns if left out"
    )
    hidden: Widths = (400,)
    dropout: Rate = 0.0
    batch_norm: _BatchNorm = False


TowerSpec = Annotated[
    MLPTowerSpec | FinalMLPSpec | DCNV2Spec | WideDeepSpec, Field(discriminator="kind")
]
