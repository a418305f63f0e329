"""A rank request after reading: every cell typed, and nothing repeated."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import pyarrow as pa

from recsys_mtl.rank.request import Id

__all__ = ["RankParts"]


@final
@dataclass(frozen=True)
class RankParts:
    """What a rank request says, once for all candidates and once for each.

    Attributes:
        ids: Of the candidates, as they were given.
        shared: Raw columns of one cell each: the user's key, features and histories,
            and the context with the time.
        own: Raw columns with a cell for each candidate: its key and its features. A
            cell that a candidate leaves out has the context's value, so ``own`` wins
            where both have a column.
        given: Columns of either that have a value, keys and the time aside: those that
            may differ from what is stored.
        given_own: Those of them that are in ``own``.
        time_us: Microseconds since 1970; ``None`` if the model knows no time.
        timestamp: The same as a raw value.
        timed_by_request: Whether the request said when; null if there is no time.
    """

    ids: Sequence[Id]
    shared: dict[str, pa.Array]
    own: dict[str, pa.Array]
    given: frozenset[str]
    given_own: frozenset[str]
    time_us: int | None
    timestamp: int | float | str | None
    timed_by_request: bool | None

    @cached_property
    def table(self) -> pa.Table:
        """One raw row a candidate."""
        return self.table_of(frozenset({*self.shared, *self.own}))

    def table_of(self, names: frozenset[str]) -> pa.Table:
        """One raw row a candidate, of some columns only."""
        rows = len(self.ids)
        columns = {
            name: pa.repeat(cell[0], rows) if rows else cell[:0]
            for name, cell in self.shared.items()
            if name in names and name not in self.own
        }
        columns |= {name: cells for name, cells in self.own.items() if name in names}
        if not columns:  # a table of no columns cannot say how many rows it has
            columns = {"": pa.nulls(rows)}
        return pa.table(columns)

    def shared_table(self) -> pa.Table:
        """One raw row for the whole request."""
        return pa.table(self.shared or {"": pa.nulls(1)})
