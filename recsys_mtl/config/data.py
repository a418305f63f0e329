"""The raw tables, their keys and time, and how rows are split."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recsys_mtl.config._base import Fraction, Spec
from recsys_mtl.config.source import (
    EntitySource,
    InteractionSource,
    SimulatedEntities,
    SimulatorSource,
)

__all__ = [
    "ColumnSplit",
    "DataSpec",
    "FileSplit",
    "HashSplit",
    "KeysSpec",
    "SplitSpec",
    "TimeSplit",
    "TimestampSpec",
]


class _FractionSplit(Spec):
    valid: Fraction = 0.1
    test: Fraction = 0.2

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> "_FractionSplit":
        if self.valid + self.test >= 1.0:
            raise ValueError(
                f"valid + test must be below 1, got {self.valid} + {self.test}"
            )
        return self


class TimeSplit(_FractionSplit):
    """Oldest rows train, then validation, newest rows test."""

    kind: Literal["time"]


class HashSplit(_FractionSplit):
    """Rows fall by a stable hash of one column, so a key is in one split only."""

    kind: Literal["hash"]
    column: str
    seed: int = 0


class ColumnSplit(Spec):
    """A column of the log says to which split a row belongs."""

    kind: Literal["column"]
    column: str
    train: str = "train"
    valid: str = "valid"
    test: str = "test"


class FileSplit(Spec):
    """The file name says it: each split is a pattern on the name, as ``fnmatch``."""

    kind: Literal["file"]
    train: str
    valid: str
    test: str


SplitSpec = Annotated[
    TimeSplit | HashSplit | ColumnSplit | FileSplit, Field(discriminator="kind")
]


class KeysSpec(Spec):
    """Columns that identify who saw what; either may be left out."""

    user: str | None = None
    item: str | None = None


class TimestampSpec(Spec):
    """When an impression happened."""

    column: str
    unit: Literal["s", "ms", "us", "ns", "iso8601"]


class DataSpec(Spec):
    """Raw input: ``interactions``, one row per impression, and optional entities."""

    interactions: InteractionSource
    users: EntitySource | None = None
    items: EntitySource | None = None
    keys: KeysSpec = KeysSpec()
    timestamp: TimestampSpec | None = None
    split: SplitSpec

    @model_validator(mode="after")
    def _parts_fit(self) -> "DataSpec":
        faults = []
        if isinstance(self.split, TimeSplit) and self.timestamp is None:
            faults.append("split: by time needs data.timestamp, which is left out")
        for name, key, entity in (
            ("users", self.keys.user, self.users),
            ("items", self.keys.item, self.items),
        ):
            if entity is not None and key is None:
                faults.append(f"{name}: needs data.keys.{name[:-1]}, which is left out")
            if (
                entity is not None
                and isinstance(entity.source, SimulatedEntities)
                and not isinstance(self.interactions, SimulatorSource)
            ):
                faults.append(
                    f"{name}.source: is the simulator, but data.interactions.kind is "
                    f"{self.interactions.kind!r}"
                )
        if faults:
            raise ValueError("\n".join(faults))
        return self
