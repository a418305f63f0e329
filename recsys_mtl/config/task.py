"""What is predicted: one spec per kind of label."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from recsys_mtl.config._base import Name, Spec
from recsys_mtl.config.condition import Condition

__all__ = ["BinaryTask", "TaskSpec", "ValueTask"]

_Weight = Annotated[
    NonNegativeFloat, Field(description="factor of the task's mean loss")
]
_SampleSpace = Annotated[
    Condition | None,
    Field(
        description="rows on which the task exists; others have no label, no loss and "
        "no metric"
    ),
]


class BinaryTask(Spec):
    """Did it happen: the probability of a yes."""

    kind: Literal["binary"]
    name: Name
    label: str | Condition = Field(description="column of 0 and 1, or a condition")
    weight: _Weight = 1.0
    sample_space: _SampleSpace = None


class ValueTask(Spec):
    """How much: the expected value of a non-negative amount."""

    kind: Literal["value"]
    name: Name
    label: str = Field(description="column of amounts, each >= 0")
    loss: Literal["log_normal", "squared"] = Field(
        "log_normal",
        description="log_normal: log(1 + y) is normal with predicted mean and width; "
        "squared: squared error on y / mean(y)",
    )
    weight: _Weight = 1.0
    sample_space: _SampleSpace = None


TaskSpec = Annotated[BinaryTask | ValueTask, Field(discriminator="kind")]
