"""The stages of a network: embeddings, bottom, gating, chain, towers.

Heads follow the tasks.
"""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from recsys_mtl.config._base import Spec
from recsys_mtl.config.bottom import BottomSpec, FlatSpec
from recsys_mtl.config.chain import ChainSpec, IndependentSpec
from recsys_mtl.config.gating import GatingSpec, MMoESpec
from recsys_mtl.config.tower import MLPTowerSpec, TowerSpec

__all__ = ["EmbeddingSpec", "ModelSpec"]


class EmbeddingSpec(Spec):
    """One vector of ``dim`` numbers per id, for every table."""

    dim: PositiveInt = 16
    init_std: PositiveFloat = Field(0.01, description="normal start, mean 0")
    numeric: Literal["raw", "linear"] = Field(
        "raw",
        description="raw: numbers stand beside the vectors; linear: each number scales "
        "a vector of its own, which is one more field",
    )


class ModelSpec(Spec):
    """Any bottom under any gating under any chain under any tower."""

    embedding: EmbeddingSpec = EmbeddingSpec()
    bottom: BottomSpec = FlatSpec()
    gating: GatingSpec = MMoESpec()
    chain: ChainSpec = IndependentSpec()
    tower: TowerSpec = MLPTowerSpec()
