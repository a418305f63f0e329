"""What a store has for the rows of a score request: cut to what is read, and bounded.

A user may come in every row, with a history of any length: repeated as it is stored, it
would take rows times events.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_mtl.errors import RequestError
from recsys_mtl.features.contract import TIME, event_column
from recsys_mtl.features.time import NEVER, filled_time, to_micros
from recsys_mtl.rank.newest import EventTimes, window_lengths
from recsys_mtl.rank.parts import MOST_REPEATED_BYTES
from recsys_mtl.rank.request import ScoreRequest, ScoreTable
from recsys_mtl.rank.signature import Signature, always
from serving.model_set import ServedModel

__all__ = ["RowWindows", "refuse_too_large"]

_Cells = Mapping[str, Any]


@final
class RowWindows:
    """Cuts stored histories to the events that a row of a score request can read.

    Args:
        model: Which one is to answer.
    """

    def __init__(self, model: ServedModel) -> None:
        recipe = model.ranker.bundle.recipe
        self._spec = recipe.data.timestamp
        self._signature = Signature(model.card.signature, self._spec)
        self._lengths = window_lengths(recipe.features)

    def times(
        self, request: ScoreRequest, num_rows: int, now_us: int
    ) -> npt.NDArray[np.int64]:
        """Say when each row is, in microseconds since 1970.

        Args:
            request: Its times need not be valid: those that are not see no events, and
                the ranker, which can say where they stand, refuses them.
            num_rows: How many it has.
            now_us: When the rows are if it has no times.

        Shape:
            - return: ``(rows,)``, or another length if the request is uneven
        """
        cells = None if self._spec is None else _column(request, self._spec.column)
        if self._spec is None or cells is None:
            return np.full(num_rows, now_us)
        name = self._spec.column
        try:
            if isinstance(cells, pa.ChunkedArray):
                typed = self._signature.read(name, cells, name, always(name))
            else:
                typed = self._signature.typed(name, cells, always(name))
        except RequestError:
            return np.full(num_rows, NEVER)
        return filled_time(to_micros(typed, self._spec))

    def cut(
        self, stored: Sequence[_Cells | None], time_B: npt.NDArray[np.int64]
    ) -> list[_Cells | None]:
        """Give each row the stored cells that it can read.

        Args:
            stored: Of each row; the same object where rows have the same user.
            time_B: When each row is; see ``times``.
        """
        users: dict[int, _Histories] = {}
        rows: list[_Cells | None] = []
        for cells, time_us in zip(stored, time_B.tolist(), strict=True):
            if cells is None:
                rows.append(None)
                continue
            user = users.get(id(cells))
            if user is None:
                user = users[id(cells)] = self._histories(cells)
            rows.append(user.at(time_us))
        return rows

    def _histories(self, cells: _Cells) -> "_Histories":
        """Find the histories that are longer than any window."""
        kept = dict(cells)
        long: list[tuple[dict[str, list[Any]], EventTimes, int]] = []
        for history, length in self._lengths.items():
            name = event_column(history, TIME)
            lists = {n: c for n, c in cells.items() if n.startswith(f"{history}.")}
            times = lists.get(name)
            if not isinstance(times, list) or len(times) <= length:
                continue
            assert self._spec is not None, "histories need times"
            try:
                typed = self._signature.typed(name, [times], always(name))
            except RequestError:
                typed = None
            if typed is not None and all(
                isinstance(c, list) and len(c) == len(times) for c in lists.values()
            ):
                log = EventTimes(typed.flatten(), self._spec)
                long.append((lists, log, length))
            else:  # a row that says it was checked, and was not: as if missing
                kept = {n: c for n, c in kept.items() if n not in lists}
        return _Histories(kept, long)


@final
class _Histories:
    """What is stored of one user, for rows of any time.

    Args:
        cells: All cells.
        long: Of each history that is to be cut its cells, times and longest window.
    """

    def __init__(
        self,
        cells: _Cells,
        long: Sequence[tuple[Mapping[str, list[Any]], EventTimes, int]],
    ) -> None:
        self._cells = cells
        self._long = long
        self._cut: dict[int, _Cells] = {}

    def at(self, time_us: int) -> _Cells:
        """The cells with the newest events before a time; one object for each time."""
        if not self._long:
            return self._cells
        cut = self._cut.get(time_us)
        if cut is None:
            lists: dict[str, list[Any]] = {}
            for history, log, length in self._long:
                places = log.newest(time_us, length).tolist()
                lists |= {n: [c[i] for i in places] for n, c in history.items()}
            cut = self._cut[time_us] = {**self._cells, **lists}
        return cut


def refuse_too_large(
    request: ScoreRequest, found: Sequence[Sequence[_Cells | None]], num_rows: int
) -> None:
    """Refuse rows whose stored cells would take too much once each row has its own.

    Args:
        request: Whose rows.
        found: By kind, the cells of each row; counted as if the request left all out.
        num_rows: How many rows there are.

    Raises:
        RequestError: They take more than ``MOST_REPEATED_BYTES``.
    """
    bytes_of: Counter[str] = Counter()
    for rows in found:
        by_id = {id(cells): cells for cells in rows if cells is not None}
        for place, count in Counter(id(c) for c in rows if c is not None).items():
            for name, cell in by_id[place].items():
                bytes_of[name] += count * _size(cell)
    total = bytes_of.total()
    if total <= MOST_REPEATED_BYTES:
        return
    ((largest, _),) = bytes_of.most_common(1)
    field = "rows" if request.columns is None else "columns"
    raise RequestError(
        request.place if isinstance(request, ScoreTable) else field,
        f"must be fewer than {num_rows:,} rows, or have shorter cells stored: what the "
        "store knows of their users and items may take "
        f"{MOST_REPEATED_BYTES:,} bytes once each row has it and would take {total:,}, "
        f"most of them in {largest!r}; send several requests",
    )


def _size(cell: Any) -> int:
    """Bytes that a raw cell takes in a column, more or less."""
    if isinstance(cell, str):
        return len(cell)
    if isinstance(cell, list):
        if cell and type(cell[0]) in (int, float):  # lists are of one type
            return 8 * len(cell)
        return 8 * len(cell) + sum(len(part) for part in cell if isinstance(part, str))
    return 8


def _column(request: ScoreRequest, name: str) -> Sequence[Any] | pa.ChunkedArray | None:
    """A column of a request; ``None`` where it has none."""
    if isinstance(request, ScoreTable):
        named = request.table.column_names.count(name) == 1
        return request.table.column(name) if named else None
    if request.rows is None:
        return (request.columns or {}).get(name)
    if not any(name in row for row in request.rows):
        return None
    return [row.get(name) for row in request.rows]
