"""The five stages: embeddings, bottom, gating, towers; heads follow the tasks."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from recsys_mtl.config._base import Rate, Spec, Widths
from recsys_mtl.config.gating import GatingSpec, MMoESpec

__all__ = ["BottomSpec", "EmbeddingSpec", "FlatSpec", "MLPTowerSpec", "ModelSpec"]


class EmbeddingSpec(Spec):
    """One vector of ``dim`` numbers per id, for every table."""

    dim: PositiveInt = 16
    init_std: PositiveFloat = Field(0.01, description="normal start, mean 0")


class FlatSpec(Spec):
    """All fields and numbers side by side, one input for all tasks."""

    kind: Literal["flat"] = "flat"
    dropout: Rate = 0.0


BottomSpec = Annotated[FlatSpec, Field()]


class MLPTowerSpec(Spec):
    """One MLP per task, then the task's logits."""

    kind: Literal["mlp"] = "mlp"
    hidden: Widths = (64,)
    dropout: Rate = 0.0


class ModelSpec(Spec):
    """Any bottom under any gating under any tower."""

    embedding: EmbeddingSpec = EmbeddingSpec()
    bottom: BottomSpec = FlatSpec()
    gating: GatingSpec = MMoESpec()
    tower: MLPTowerSpec = MLPTowerSpec()
