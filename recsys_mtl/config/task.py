"""What is predicted: one spec per kind of label."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from recsys_mtl.config._base import Name, Spec
from recsys_mtl.config.calibration import (
    CalibrationSpec,
    NegativeSampling,
    NoCalibration,
)
from recsys_mtl.config.condition import Condition

__all__ = [
    "AFTER_TRAINING",
    "BeforeEnd",
    "BinaryTask",
    "OrdinalTask",
    "RowWeight",
    "SurvivalTask",
    "TaskSpec",
    "ValueTask",
]

AFTER_TRAINING = ("calibration", "negative_sampling")
"""Fields of tasks that change predictions after the training, and nothing before."""


class RowWeight(Spec):
    """How much each row counts in a task's mean loss; metrics do not weigh.

    Weights are divided by their mean over the task's training rows. A row whose cell
    is missing counts as that mean.
    """

    column: str = Field(description="column of amounts, each >= 0, as a click rate")
    clip: PositiveFloat | None = Field(
        None, description="what is above counts as this; in units of the column"
    )


class _Task(Spec):
    name: Name
    weight: NonNegativeFloat = Field(1.0, description="factor of the task's mean loss")
    sample_space: Condition | None = Field(
        None,
        description="rows on which the task exists; others have no label, no loss and "
        "no metric",
    )
    row_weight: RowWeight | None = None


class BinaryTask(_Task):
    """Did it happen: the probability of a yes."""

    kind: Literal["binary"]
    label: str | Condition = Field(description="column of 0 and 1, or a condition")
    calibration: CalibrationSpec = NoCalibration()
    negative_sampling: NegativeSampling | None = None

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Raw columns that make the label."""
        return (_column(self.label),)


class ValueTask(_Task):
    """How much: the expected value of a non-negative amount."""

    kind: Literal["value"]
    label: str = Field(description="column of amounts, each >= 0")
    loss: Literal["log_normal", "squared", "zero_inflated_log_normal"] = Field(
        "log_normal",
        description="log_normal: log(1 + y) is normal with predicted mean and width; "
        "squared: squared error on y / mean(y); zero_inflated_log_normal: y is above 0 "
        "with a predicted probability, and log(y) is normal then",
    )

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Raw columns that make the label."""
        return (self.label,)


class OrdinalTask(_Task):
    """Which of several ordered levels: ratings, stages of a funnel."""

    kind: Literal["ordinal"]
    label: str = Field(description="column of levels")
    levels: Annotated[int, Field(ge=2)] | tuple[int | float | str, ...] = Field(
        description="number of levels, where the column has 0, 1, ...; or the "
        "column's values from lowest to highest"
    )

    @field_validator("levels")
    @classmethod
    def _levels_differ(
        cls, levels: int | tuple[int | float | str, ...]
    ) -> int | tuple[int | float | str, ...]:
        if isinstance(levels, tuple):
            if len(levels) < 2:
                raise ValueError(f"must be at least 2, got {len(levels)}")
            for level in levels:
                if levels.count(level) > 1:
                    raise ValueError(f"must differ, got {level!r} twice")
            if len({isinstance(level, str) for level in levels}) > 1:
                raise ValueError("must be all text or all numbers, got both")
        return levels

    @property
    def names(self) -> tuple[str, ...]:
        """Levels from lowest to highest, as text."""
        if isinstance(self.levels, int):
            return tuple(map(str, range(self.levels)))
        return tuple(map(str, self.levels))

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Raw columns that make the label."""
        return (self.label,)


class BeforeEnd(Spec):
    """The event was seen where the time is before another column's, as a video's end.

    Other rows are censored at that end.
    """

    before: str = Field(description="column of times, each >= 0; features may read it")


class SurvivalTask(_Task):
    """How long until it happens, where some rows were not watched to the end."""

    kind: Literal["survival"]
    time: str = Field(
        description="column of times, each >= 0: of the event or, if it "
        "was not seen, of the end of watching"
    )
    event: str | Condition | BeforeEnd = Field(
        description="column of 0 and 1, a condition, or `before` and a column of ends: "
        "whether the event was seen"
    )
    bins: PositiveInt | Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (
        Field(
            20,
            description="number of bins with equally many training events, or their "
            "upper edges, rising; what comes after the last edge counts as censored "
            "there",
        )
    )
    horizons: tuple[PositiveFloat, ...] = Field(
        (), description="times to tell survival and hazard at, and to calibrate at"
    )

    @model_validator(mode="after")
    def _times_rise(self) -> "SurvivalTask":
        for name, times in (("bins", self.bins), ("horizons", self.horizons)):
            if isinstance(times, tuple):
                for low, high in pairwise(times):
                    if high <= low:
                        raise ValueError(f"{name} must rise, got {low} before {high}")
        if isinstance(self.bins, tuple):
            for horizon in self.horizons:
                if horizon > self.bins[-1]:
                    raise ValueError(
                        f"horizons must be at most the last edge of bins, got horizon "
                        f"{horizon} and last edge {self.bins[-1]}"
                    )
        return self

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Raw columns that make the label."""
        if isinstance(self.event, BeforeEnd):
            return (self.time,)
        return (self.time, _column(self.event))

    @property
    def end_column(self) -> str | None:
        """Raw column of ends, which no more than bounds the label."""
        return self.event.before if isinstance(self.event, BeforeEnd) else None


TaskSpec = Annotated[
    BinaryTask | ValueTask | OrdinalTask | SurvivalTask, Field(discriminator="kind")
]


def _column(label: str | Condition) -> str:
    return label.column if isinstance(label, Condition) else label
