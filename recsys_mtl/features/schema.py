"""The encoded columns of a feature table: the contract of features, data and model.

Encoded Arrow columns are named and typed by rule:

========================  ==================  =====================================
column                    type                meaning
========================  ==================  =====================================
``<id field>``            ``int32``           0 missing, 1 unseen, 2.. known values
``<multi id field>``      ``list<int32>``     ids of the values; empty if none
``<dense field>``         ``float32``         never null, never NaN
``<history>.<field>``     ``list<int32>``     ids of the events, oldest first
``<history>.gap``         ``list<int32>``     ids of the time since each event
``label.<task>``          ``float32``         null where the task has no label
``weight.<task>``         ``float32``         of tasks with row weights; null if missing
``key.user, key.item``    as in the raw rows  who saw what
``key.time``              ``int64``           microseconds since 1970, null if untimed
========================  ==================  =====================================
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from recsys_mtl.features.cast import RawType

__all__ = [
    "GAP",
    "MISSING",
    "NUM_GAPS",
    "UNSEEN",
    "Artifact",
    "FeatureSchema",
    "HistoryField",
    "IdField",
    "RawColumn",
    "label_column",
    "weight_column",
]

MISSING = 0
"""Id of a value that is not there."""

UNSEEN = 1
"""Id of a value that the training split did not have (often enough)."""

GAP = "gap"
"""Last part of the name of a history's column of time gaps."""

NUM_GAPS = 64
"""Size of a gap table: id = 2 + floor(log2(1 + seconds)), so 64 covers any int64."""


class Artifact(BaseModel):
    """Immutable, written as JSON, and closed to names it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class IdField(Artifact):
    """A column of ids into an embedding table named like the field.

    Attributes:
        name: Column and table.
        size: Rows of the table; every id is below it.
        multi: Whether a row holds a list of ids.
        history_only: Whether only histories read it, so it is no column of its own.
    """

    name: str
    size: int
    multi: bool = False
    history_only: bool = False


class HistoryField(Artifact):
    """Columns of equally long lists, one per field of an event.

    Attributes:
        name: First part of the columns' names.
        fields: Names of id fields whose tables the events share.
        gaps: Whether there is a gap column, with a table ``<name>.gap``.
        length: Longest list.
    """

    name: str
    fields: tuple[str, ...]
    gaps: bool
    length: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the encoded columns, gap last."""
        fields = (*self.fields, GAP) if self.gaps else self.fields
        return tuple(f"{self.name}.{field}" for field in fields)


class FeatureSchema(Artifact):
    """Everything a network needs to know about encoded columns."""

    ids: tuple[IdField, ...]
    dense: tuple[str, ...]
    histories: tuple[HistoryField, ...]

    @property
    def sequence_tables(self) -> frozenset[str]:
        """Id fields whose table some history shares."""
        return frozenset(f for history in self.histories for f in history.fields)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all encoded input columns, in a fixed order."""
        return (
            *(field.name for field in self.ids if not field.history_only),
            *self.dense,
            *(column for history in self.histories for column in history.columns),
        )


class RawColumn(Artifact):
    """A raw column that features read.

    Attributes:
        name: As in the recipe; for a history's events ``<history>.<raw column>``.
        type: What values become: whole numbers, text, real numbers, or lists of them.
        origin: The table that has it; ``context`` is the impression itself.
        history_only: Whether only histories read it, of rows that are past: no request
            gives it.
    """

    name: str
    type: RawType
    origin: Literal["context", "user", "item"]
    history_only: bool = False


def label_column(task: str) -> str:
    """Name of the encoded label column of ``task``."""
    return f"label.{task}"


def weight_column(task: str) -> str:
    """Name of the encoded column of row weights of ``task``."""
    return f"weight.{task}"
