"""How tasks share experts: one spec per gating, told apart by ``kind``."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from recsys_mtl.config._base import Rate, Spec, Widths

__all__ = ["DirectSpec", "GatingSpec", "MMoESpec", "SharedBottomSpec"]


class DirectSpec(Spec):
    """No experts: every tower reads the bottom. For complete single-task models."""

    kind: Literal["direct"] = "direct"


class SharedBottomSpec(Spec):
    """Every task reads one expert unchanged."""

    kind: Literal["shared_bottom"] = "shared_bottom"
    hidden: Widths = (256, 128)
    dropout: Rate = 0.0


class MMoESpec(Spec):
    """Every task mixes shared experts with its own softmax gate."""

    kind: Literal["mmoe"] = "mmoe"
    hidden: Widths = (256, 128)
    num_experts: PositiveInt = 4
    dropout: Rate = 0.0


GatingSpec = Annotated[
    DirectSpec | SharedBottomSpec | MMoESpec, Field(discriminator="kind")
]
