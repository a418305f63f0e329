"""What every store of entities does."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, final

import numpy as np
from jaxtyping import Bool, Float

from recsys_mtl.errors import RequestError

__all__ = [
    "KINDS",
    "MOST_FOUND_BYTES",
    "AbstractEntityStore",
    "Cells",
    "Found",
    "Kind",
    "StoredRow",
    "refuse_too_much",
]

Kind = Literal["users", "items"]
KINDS: tuple[Kind, ...] = ("users", "items")

MOST_FOUND_BYTES: Final = 16 * 1024 * 1024
"""What the rows of one lookup may take as they are stored; once read, they take about
ten times that. Two thousand users with 200 events of four columns fit."""

Cells = Mapping[str, Any]
"""Raw values by column; of histories, lists under ``<history>.<column>``."""


@final
@dataclass(frozen=True)
class StoredRow:
    """What is stored of one user or item.

    Attributes:
        cells: Raw values by column.
        written_us: Microseconds since 1970.
        checked: Version of the columns that the cells were checked against; empty for
            none.
    """

    cells: Cells
    written_us: int
    checked: str = ""


@final
@dataclass(frozen=True)
class Found:
    """What a store has for some keys, in their order.

    Attributes:
        rows: One a key; ``None`` where the store has none.
        now_us: When it was looked up.
        damaged: Rows that could not be read, and count as absent.
    """

    rows: tuple[StoredRow | None, ...]
    now_us: int
    damaged: int = 0

    @property
    def present_B(self) -> Bool[np.ndarray, " keys"]:
        """Which keys have a row."""
        return np.array([row is not None for row in self.rows], dtype=bool)

    @property
    def age_s(self) -> Float[np.ndarray, " keys"]:
        """Seconds since each row was written; NaN where there is none."""
        return np.array(
            [
                np.nan if row is None else max(0, self.now_us - row.written_us) / 1e6
                for row in self.rows
            ]
        )


class AbstractEntityStore(ABC):
    """Finds rows of users and items by key, many at once.

    Keys are text; numbers are written in decimal. Several threads may ask at once.
    """

    writable: bool
    """Whether rows can be put and deleted."""

    def get_many(self, kind: Kind, keys: Sequence[str], *, now_us: int) -> Found:
        """Look up keys of one kind; see ``fetch``."""
        return self.fetch({kind: keys}, now_us=now_us)[kind]

    @abstractmethod
    def fetch(
        self, wanted: Mapping[Kind, Sequence[str]], *, now_us: int
    ) -> dict[Kind, Found]:
        """Look up keys of several kinds, in one go.

        Args:
            wanted: Keys by kind; one may come several times.
            now_us: Microseconds since 1970, which ages and lifetimes are counted to.

        Raises:
            EnvironmentFault: The store cannot be reached, or is broken.
            RequestError: The rows take more than ``MOST_FOUND_BYTES``.
        """

    @abstractmethod
    def put_many(
        self,
        kind: Kind,
        rows: Sequence[tuple[str, Cells]],
        *,
        now_us: int,
        checked: str = "",
    ) -> None:
        """Store rows, each in place of what was stored under its key; the last wins.

        Args:
            kind: Users or items.
            rows: Key and cells. All are stored, or none.
            now_us: When they are written.
            checked: Version of the columns that cells were checked against.

        Raises:
            EnvironmentFault: The store is full, cannot be reached, or is read-only.
        """

    @abstractmethod
    def delete_many(self, kind: Kind, keys: Sequence[str]) -> int:
        """Remove rows.

        Returns:
            How many there were.

        Raises:
            EnvironmentFault: The store cannot be reached, or is read-only.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back files and connections."""


def refuse_too_much(kind: Kind, num_keys: int, size: int) -> None:
    """Refuse rows before they are read, if they take too much.

    Args:
        kind: Of the rows found last.
        num_keys: How many of this kind were asked for.
        size: Bytes of all rows found so far, as they are stored.

    Raises:
        RequestError: They take more than ``MOST_FOUND_BYTES``.
    """
    if size > MOST_FOUND_BYTES:
        raise RequestError(
            kind,
            f"must be fewer than the {num_keys:,} that are asked for, or have shorter "
            f"histories stored: what a lookup finds may take {MOST_FOUND_BYTES:,} "
            "bytes",
        )
