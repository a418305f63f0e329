"""A rank request after reading: every cell typed, and nothing repeated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_mtl.errors import RequestError
from recsys_mtl.rank.request import Id

__all__ = ["MOST_REPEATED_BYTES", "RankParts"]

MOST_REPEATED_BYTES: Final = 128 * 1024 * 1024
"""What the cells of the user and the context may take once each candidate has them.

A thousand events of four numbers for each of 2,000 candidates take half of it.
"""


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
        fields: Where in the request the columns of ``shared`` stand, for errors.
        item_key: Which column of ``own`` has the ids; null if items have none.
    """

    ids: Sequence[Id]
    shared: dict[str, pa.Array]
    own: dict[str, pa.Array]
    given: frozenset[str]
    given_own: frozenset[str]
    time_us: int | None
    timestamp: int | float | str | None
    timed_by_request: bool | None
    fields: Mapping[str, str]
    item_key: str | None

    @property
    def table(self) -> pa.Table:
        """One raw row a candidate; made anew each time, for it can be large."""
        return self.table_of()

    def table_of(
        self,
        names: frozenset[str] | None = None,
        candidates: npt.NDArray[np.int64] | None = None,
    ) -> pa.Table:
        """One raw row a candidate, of some columns and candidates only.

        Args:
            names: Columns; all if left out.
            candidates: Places of candidates, in the order of the rows; all of them, in
                their own order, if left out.

        Raises:
            RequestError: What candidates share is too large to be repeated for each.
        """
        rows = len(self.ids) if candidates is None else len(candidates)
        wanted = {*self.shared, *self.own} if names is None else names
        shared = {
            name: cell
            for name, cell in self.shared.items()
            if name in wanted and name not in self.own
        }
        self._refuse_too_large(shared, rows)
        columns = {
            name: pa.repeat(cell[0], rows) if rows else cell[:0]
            for name, cell in shared.items()
        }
        columns |= {
            name: cells if candidates is None else cells.take(pa.array(candidates))
            for name, cells in self.own.items()
            if name in wanted
        }
        if not columns:  # a table of no columns cannot say how many rows it has
            columns = {"": pa.nulls(rows)}
        return pa.table(columns)

    def shared_table(self) -> pa.Table:
        """One raw row for the whole request."""
        return pa.table(self.shared or {"": pa.nulls(1)})

    def _refuse_too_large(self, shared: Mapping[str, pa.Array], rows: int) -> None:
        bytes_of = {name: rows * cell.nbytes for name, cell in shared.items()}
        total = sum(bytes_of.values())
        if total <= MOST_REPEATED_BYTES:
            return
        largest = max(bytes_of, key=bytes_of.__getitem__)
        raise RequestError(
            self.fields.get(largest, largest),
            f"must be shorter, or the candidates fewer than {rows:,}: this request is "
            "scored row by row, which repeats the user and the context for each of "
            f"them; that may take {MOST_REPEATED_BYTES:,} bytes and would take "
            f"{total:,}, most of them here",
        )
