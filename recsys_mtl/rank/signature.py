"""What a request may give: each value typed by the signature, or refused by place."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.config.data import TimestampSpec
from recsys_mtl.errors import RequestError
from recsys_mtl.features.cast import coded_text
from recsys_mtl.features.column import absent, flat, present
from recsys_mtl.features.time import to_micros
from recsys_mtl.rank.card import InputColumn
from recsys_mtl.rank.column import ColumnType, unknown_name, whole_column
from recsys_mtl.rank.typed import typed_column, typed_times

__all__ = ["MAX_TEXT_BYTES", "Signature", "always", "at"]

MAX_TEXT_BYTES = 65_536
"""Longest text of a cell: one far longer than any key, and short enough to repeat."""


@final
class Signature:
    """Checks names, types and times of raw columns.

    Args:
        columns: What a request may give.
        timestamp: Column and unit of the time, if the model knows any.
    """

    def __init__(
        self, columns: Sequence[InputColumn], timestamp: TimestampSpec | None
    ) -> None:
        self.columns = {column.name: column for column in columns}
        self._timestamp = timestamp

    def expect(
        self, field: str, name: str, origins: tuple[str, ...], roles: tuple[str, ...]
    ) -> None:
        """Refuse a name that does not belong in this part of a rank request.

        Raises:
            RequestError: It belongs elsewhere, or nowhere.
        """
        column = self.columns.get(name)
        if column is None:
            allowed = [
                c.name
                for c in self.columns.values()
                if c.origin in origins and c.role in roles
            ]
            raise unknown_name(field, name, allowed)
        if column.role not in roles or column.origin not in origins:
            raise RequestError(field, f"belongs elsewhere; {_PLACES[_place(column)]}")

    def typed(
        self, name: str, cells: Sequence[Any], path: Callable[[int], str]
    ) -> pa.Array:
        """Type cells as JSON gives them.

        Raises:
            RequestError: A cell does not fit the column.
        """
        column = self.columns[name]
        array = whole_column(cells, cast(ColumnType, column.type), path)
        return self._checked(array, column, path)

    def read(
        self,
        name: str,
        given: pa.Array | pa.ChunkedArray,
        field: str,
        path: Callable[[int], str],
    ) -> pa.Array:
        """Type a column that is typed already, if not the same way.

        Raises:
            RequestError: The column or a value does not fit the signature.
        """
        column = self.columns[name]
        if column.unit is not None:
            assert self._timestamp is not None
            given = typed_times(given, self._timestamp, field, path)
        if column.type == "string" and column.role == "feature":
            coded = coded_text(given)
            if coded is not None:
                return self._checked(coded, column, path)
        array = typed_column(given, cast(ColumnType, column.type), field, path)
        return self._checked(array, column, path)

    def _checked(
        self, array: pa.Array, column: InputColumn, path: Callable[[int], str]
    ) -> pa.Array:
        if column.role == "history" and not pa.types.is_list(array.type):
            # Text, which elsewhere may stand for a list, has no events to count.
            for i in np.flatnonzero(present(array))[:1]:
                got = str(array[int(i)].as_py())[:60]
                raise RequestError(
                    path(int(i)), f"must be a list of events, got {got!r}"
                )
            array = pa.nulls(len(array), pa.list_(array.type))
        if column.unit is not None:
            self._check_times(array, path)
        if array.nbytes > MAX_TEXT_BYTES:
            _check_lengths(array, path)
        return array

    def even_histories(
        self, columns: Mapping[str, pa.Array], path: Callable[[str, int], str]
    ) -> dict[str, pa.Array]:
        """Give all columns of a history as many events as it has times.

        A null beside times is a list of events of which this is not known: of several
        rows, some may have more columns than others.

        Raises:
            RequestError: A list has more events or fewer.
        """
        evened = dict(columns)
        for name, column in columns.items():
            if self.columns[name].role != "history":
                continue
            times = columns.get(f"{name.split('.')[0]}.time")
            if times is None:
                raise RequestError(
                    path(name, 0),
                    f"needs {name.split('.')[0]}.time, which tells when each event was",
                )
            lengths_B, wanted_B = _lengths(column), _lengths(times)
            unknown_B = absent(column) & (wanted_B > 0)
            if unknown_B.any():
                evened[name] = _with_unknown(column, np.where(unknown_B, wanted_B, 0))
                lengths_B = np.where(unknown_B, wanted_B, lengths_B)
            for i in np.flatnonzero(lengths_B != wanted_B)[:1]:
                raise RequestError(
                    path(name, int(i)),
                    f"must have {wanted_B[i]} events like its list of times, got "
                    f"{lengths_B[i]}",
                )
        return evened

    def _check_times(self, raw: pa.Array, path: Callable[[int], str]) -> None:
        """Refuse times that cannot be read, and events without one."""
        assert self._timestamp is not None
        nested = pa.types.is_list(raw.type)
        micros = to_micros(raw.flatten() if nested else raw, self._timestamp)
        if nested:
            owner = pc.list_parent_indices(raw).to_pylist()
            first = raw.offsets.to_pylist()
            bad = micros.is_null().to_numpy(zero_copy_only=False)
            for k in np.flatnonzero(bad)[:1]:
                i = owner[k]
                raise self._no_time(f"{path(i)}[{k - first[i]}]", raw[i][k - first[i]])
            return
        bad = pc.and_(raw.is_valid(), micros.is_null()).to_numpy(zero_copy_only=False)
        for i in np.flatnonzero(bad)[:1]:
            raise self._no_time(path(int(i)), raw[int(i)])

    def _no_time(self, field: str, cell: pa.Scalar) -> RequestError:
        assert self._timestamp is not None
        unit = self._timestamp.unit
        wanted = "a time in ISO 8601" if unit == "iso8601" else f"a time in {unit}"
        return RequestError(
            field,
            f"must be {wanted}, in the years 1 to 9999, got {str(cell.as_py())[:60]!r}",
        )


def always(field: str) -> Callable[[int], str]:
    """Call every position by one name."""
    return lambda _: field


def at(field: str, name: str) -> Callable[[int], str]:
    """Call positions by a pattern with ``{name}`` and ``{i}``.

    Example:
        >>> at("rows[{i}].{name}", "age")(3)
        'rows[3].age'
    """
    # Not str.format on the name: a name may hold braces.
    before, _, after = field.replace("{name}", name.replace("{i}", "")).partition("{i}")
    return lambda i: f"{before}{i}{after}"


def _lengths(lists: pa.Array) -> np.ndarray:
    lengths: np.ndarray = (
        pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    )
    return lengths


def _with_unknown(lists: pa.Array, unknown_B: np.ndarray) -> pa.Array:
    """Put so many nulls into null rows; those that get none stay null.

    Example:
        >>> lists = pa.array([[7], None, None], pa.list_(pa.int64()))
        >>> _with_unknown(lists, np.array([0, 2, 0])).to_pylist()
        [[7], [None, None], None]
    """
    count_B = _lengths(lists) + unknown_B
    known_X = np.repeat(unknown_B == 0, count_B)
    place_X = np.cumsum(known_X) - 1
    values = lists.flatten().take(pa.array(place_X, mask=~known_X))
    offsets = np.concatenate([[0], np.cumsum(count_B)]).astype(np.int32)
    still_null = absent(lists) & (unknown_B == 0)
    return pa.ListArray.from_arrays(
        pa.array(offsets), values, mask=pa.array(still_null)
    )


def _check_lengths(array: pa.Array, path: Callable[[int], str]) -> None:
    array = flat(array)
    nested = pa.types.is_list(array.type)
    values = array.flatten() if nested else array
    if not pa.types.is_string(values.type):
        return
    size_B = pc.binary_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    for k in np.flatnonzero(size_B > MAX_TEXT_BYTES)[:1]:
        i = int(pc.list_parent_indices(array)[int(k)].as_py()) if nested else int(k)
        raise RequestError(
            path(i),
            f"must be text of at most {MAX_TEXT_BYTES:,} bytes, got {size_B[k]:,}",
        )


def _place(column: InputColumn) -> str:
    return column.role if column.role in ("key", "history") else column.origin


_PLACES = {
    "user": "it is a column of the user: put it into user.features",
    "item": "it is a column of the item: put it into items[].features",
    "context": "it is a column of the impression: put it into context",
    "key": "it is a key: give it as `id`",
    "history": "it is part of a history: put it into user.histories",
}
