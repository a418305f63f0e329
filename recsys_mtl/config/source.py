"""Where raw rows come from: files, or the simulator."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from recsys_mtl.config._base import Spec

__all__ = [
    "MAX_ROWS_OF_A_USER",
    "ArrowSource",
    "CsvSource",
    "EntitySource",
    "FileSource",
    "InteractionSource",
    "ParquetSource",
    "SimulatedEntities",
    "SimulatorSource",
]

MAX_ROWS_OF_A_USER = 65_536
"""Most rows that the simulator makes of a user on average: it holds them in memory."""

Paths = Annotated[
    str | tuple[str, ...],
    Field(
        description="file, folder, glob or a list of them; ${NAME} reads the "
        "environment; relative to the working directory"
    ),
]


class ParquetSource(Spec):
    """Parquet files."""

    kind: Literal["parquet"]
    path: Paths


class ArrowSource(Spec):
    """Arrow IPC files, either the file or the stream format."""

    kind: Literal["arrow"]
    path: Paths


class CsvSource(Spec):
    """Delimited text, gzip-compressed where the name ends in ``.gz``."""

    kind: Literal["csv"]
    path: Paths
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    column_names: tuple[str, ...] | None = Field(
        None, description="names in order, for files without a header line"
    )
    strip: bool = Field(False, description="strip blanks around every value")


class SimulatorSource(Spec):
    """The built-in feed with known truth; see ``recsys_mtl.data.simulator``."""

    kind: Literal["simulator"]
    rows: PositiveInt = 400_000
    seed: NonNegativeInt = 0
    num_users: PositiveInt = 4_000
    num_items: PositiveInt = 2_000
    num_days: PositiveInt = 14
    conflict: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.3,
        description="0: all tasks want the same items; 1: orders and likes want the "
        "opposite of what clicks want",
    )
    drift: NonNegativeFloat = Field(
        0.3, description="how far tastes turn over the days"
    )
    position_bias: NonNegativeFloat = Field(
        0.5, description="loss of click logit from the first to the last position"
    )

    @model_validator(mode="after")
    def _users_fit_into_chunks(self) -> "SimulatorSource":
        if self.rows > MAX_ROWS_OF_A_USER * self.num_users:
            raise ValueError(
                f"rows must be at most {MAX_ROWS_OF_A_USER} x num_users, got "
                f"{self.rows} rows for {self.num_users} users"
            )
        return self


FileSource = Annotated[
    ParquetSource | ArrowSource | CsvSource, Field(discriminator="kind")
]
InteractionSource = Annotated[
    ParquetSource | ArrowSource | CsvSource | SimulatorSource,
    Field(discriminator="kind"),
]


class SimulatedEntities(Spec):
    """The users or items of the simulator that makes the interactions."""

    kind: Literal["simulator"]


class EntitySource(Spec):
    """A table with one row per user or item, joined to every impression by its key."""

    source: Annotated[
        ParquetSource | ArrowSource | CsvSource | SimulatedEntities,
        Field(discriminator="kind"),
    ]
    key: str | None = Field(
        None, description="key column of this table; the interactions' name if left out"
    )
