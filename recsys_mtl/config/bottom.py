"""What every task reads of a row: one spec per bottom, told apart by ``kind``."""

from typing import Annotated, Literal

from pydantic import Field

from recsys_mtl.config._base import Rate, Spec

__all__ = ["BottomSpec", "FlatSpec"]


class FlatSpec(Spec):
    """All fields and numbers side by side, one input for all tasks."""

    kind: Literal["flat"] = "flat"
    dropout: Rate = 0.0


BottomSpec = Annotated[FlatSpec, Field()]
