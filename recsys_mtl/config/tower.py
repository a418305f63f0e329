"""From a task's hidden vector to its logits: one spec per tower, by ``kind``."""

from typing import Annotated, Literal

from pydantic import Field

from recsys_mtl.config._base import Rate, Spec, Widths

__all__ = ["MLPTowerSpec", "TowerSpec"]


class MLPTowerSpec(Spec):
    """One MLP per task, then the task's logits."""

    kind: Literal["mlp"] = "mlp"
    hidden: Widths = (64,)
    dropout: Rate = 0.0


TowerSpec = Annotated[MLPTowerSpec, Field()]
