"""Which columns a model reads of users and items, and whether cells fit them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any, final

import pyarrow as pa

from recsys_mtl.config.data import TimestampSpec
from recsys_mtl.config.feature import FeatureSpec, ListFeature
from recsys_mtl.entities.store import Cells, Found, Kind, StoredRow
from recsys_mtl.errors import RequestError
from recsys_mtl.features.cast import cast_column
from recsys_mtl.features.contract import TIME, column_of, event_column
from recsys_mtl.rank.card import InputColumn, ModelCard
from recsys_mtl.rank.signature import Signature, always

__all__ = ["EntitySchema"]

_ORIGINS: dict[Kind, str] = {"users": "user", "items": "item"}
_ROLES = ("feature", "history")


@final
class EntitySchema:
    """The columns of users and items that a model reads.

    Args:
        columns: The model's signature.
        separators: By column of a list feature, what splits its text; null where
            nothing does.

    Attributes:
        columns: By kind and name, those of features and histories.
        histories: By column of a history, the history's name.
        times: Columns of histories that say when events were.
        lists: Columns of lists for which text may stand.
        signature: Types cells of them.
    """

    def __init__(
        self, columns: Sequence[InputColumn], separators: Mapping[str, str | None]
    ) -> None:
        self.columns: dict[Kind, dict[str, InputColumn]] = {
            kind: {
                c.name: c for c in columns if c.origin == origin and c.role in _ROLES
            }
            for kind, origin in _ORIGINS.items()
        }
        self.histories = {
            c.name: c.name.split(".")[0] for c in columns if c.role == "history"
        }
        self.times = frozenset(
            name
            for name, history in self.histories.items()
            if name == event_column(history, TIME)
        )
        self.lists = tuple(
            name
            for of in self.columns.values()
            for name, column in of.items()
            if column.type == "string_list" and column.role == "feature"
        )
        self._separators = dict(separators)
        time = next((c for c in columns if c.role == "timestamp"), None)
        self.signature = Signature(
            columns,
            None
            if time is None
            else TimestampSpec.model_validate({"column": time.name, "unit": time.unit}),
        )

    @classmethod
    def of(cls, card: ModelCard, features: Iterable[FeatureSpec]) -> "EntitySchema":
        """Take the columns that a model's card tells of, and its recipe's features."""
        lists = (feature for feature in features if isinstance(feature, ListFeature))
        return cls(card.signature, {column_of(f): f.separator for f in lists})

    @cached_property
    def version(self) -> str:
        """The same for models that read the same columns as the same types."""
        parts = [
            f"{kind} {c.name} {c.type} {c.role} {c.unit}"
            for kind, columns in self.columns.items()
            for c in sorted(columns.values(), key=lambda column: column.name)
        ]
        return sha256("\n".join(parts).encode()).hexdigest()[:16]

    def typed(
        self,
        kind: Kind,
        columns: Mapping[str, Sequence[Any]] | Mapping[str, pa.ChunkedArray],
        path: Callable[[str, int], str],
    ) -> dict[str, pa.Array]:
        """Type columns as requests are typed; those of other models are left out.

        Args:
            kind: Users or items.
            columns: Cells as JSON gives them, or Arrow columns, by name.
            path: From the name of a column and the position of a cell to its place in
                what was sent.

        Raises:
            RequestError: A cell does not fit its column.
        """
        typed: dict[str, pa.Array] = {}
        for name, cells in columns.items():
            if name not in self.columns[kind]:
                continue
            where = _bound(path, name)
            if isinstance(cells, pa.ChunkedArray):
                typed[name] = self.signature.read(name, cells, where(0), where)
            else:
                typed[name] = self.signature.typed(name, cells, where)
        return self.signature.even_histories(typed, path)

    def split(self, name: str, text: str) -> list[str] | None:
        """Give the list that encoders make of text; ``None`` if it is missing.

        Example:
            >>> EntitySchema([], {"tags": "|"}).split("tags", "new|red")
            ['new', 'red']
        """
        if not text:
            return None
        separator = self._separators.get(name)
        return text.split(separator) if separator else [text]

    def split_column(self, name: str, texts: pa.Array) -> pa.Array:
        """Give a column of lists where its cells are text; see ``split``."""
        separator = self._separators.get(name)
        return cast_column(texts, "string_list", separator).array

    def fitting(self, kind: Kind, row: StoredRow) -> tuple[dict[str, Any], int]:
        """Keep the cells that the model reads and that fit its columns.

        What another model's columns took may be of another type here. Text of list
        features becomes lists: other rows of a request may have such.

        Returns:
            Cells by column, and how many columns did not fit.
        """
        known = self.columns[kind]
        cells = {
            name: cell
            for name, cell in row.cells.items()
            if name in known and cell is not None
        }
        misfits = 0 if row.checked == self.version else self._drop_misfits(kind, cells)
        for name in self.lists:
            cell = cells.get(name)
            if isinstance(cell, str):
                parts = self.split(name, cell)
                if parts is None:
                    del cells[name]
                else:
                    cells[name] = parts
        return cells, misfits

    def _drop_misfits(self, kind: Kind, cells: dict[str, Any]) -> int:
        """Drop what does not fit; say how many columns that was."""
        misfits, known = 0, self.columns[kind]
        for group in _groups(cells, known):
            try:
                self.typed(kind, {n: [cells[n]] for n in group}, lambda n, _: n)
            except RequestError:
                misfits += len(group)
                for name in group:
                    del cells[name]
        return misfits

    def table(self, kind: Kind, found: Found) -> pa.Table:
        """Lay out what a store has as raw columns, null where it has nothing.

        Cells that do not fit count as missing.

        Shape:
            - return: as many rows as keys, every column that the model reads
        """
        rows = [{} if row is None else self.fitting(kind, row)[0] for row in found.rows]
        names = list(self.columns[kind])
        columns = {
            name: self.signature.typed(name, [r.get(name) for r in rows], always(name))
            for name in names
        }
        return pa.table(columns or {"": pa.nulls(len(rows))})


def _groups(cells: Cells, columns: Mapping[str, InputColumn]) -> list[tuple[str, ...]]:
    """Columns that stand and fall together: features alone, histories as a whole."""
    groups: dict[str, list[str]] = {}
    for name in cells:
        history = columns[name].role == "history"
        groups.setdefault(name.split(".")[0] if history else name, []).append(name)
    return [tuple(group) for group in groups.values()]


def _bound(path: Callable[[str, int], str], name: str) -> Callable[[int], str]:
    return lambda i: path(name, i)
