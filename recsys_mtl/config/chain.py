"""How tasks that follow one another are tied: one spec per chain, by ``kind``."""

from typing import Annotated, Literal

from pydantic import Field

from recsys_mtl.config._base import Spec

__all__ = ["ChainSpec", "IndependentSpec"]


class IndependentSpec(Spec):
    """No task reads another."""

    kind: Literal["independent"] = "independent"


ChainSpec = Annotated[IndependentSpec, Field()]
