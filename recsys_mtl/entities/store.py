"""What every store of entities does."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["KINDS", "AbstractEntityStore", "Cells", "Found", "Kind", "StoredRow"]

Kind = Literal["users", "items"]
KINDS: tuple[Kind, ...] = ("users", "items")

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
