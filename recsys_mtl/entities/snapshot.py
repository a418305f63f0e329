"""The users and items of a bundle: mapped from disk, and read-only."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, final

import numpy as np
import pyarrow as pa

from recsys_mtl.entities.store import (
    AbstractEntityStore,
    Cells,
    Found,
    Kind,
    StoredRow,
)
from recsys_mtl.errors import EnvironmentFault
from recsys_mtl.export.bundle import Bundle
from recsys_mtl.features.entity import EntityTable
from recsys_mtl.rank.raw import raw_time

__all__ = ["SnapshotStore"]


@final
class SnapshotStore(AbstractEntityStore):
    """Rows as old as the bundle.

    Args:
        bundle: Whose users and items.
    """

    writable = False

    def __init__(self, bundle: Bundle) -> None:
        self._tables: dict[Kind, EntityTable | None] = {
            "users": bundle.store.users,
            "items": bundle.store.items,
        }
        self._timestamp = bundle.recipe.data.timestamp
        created = datetime.fromisoformat(bundle.info.created)
        self._created_us = int(created.timestamp()) * 1_000_000
        # Events of aggregates are stored too, but are no raw columns.
        known = {column.name for column in bundle.signature if not column.history_only}
        self._columns: dict[Kind, tuple[str, ...]] = {
            kind: tuple(c for c in table.columns if c in known)
            for kind, table in self._tables.items()
            if table is not None
        }

    def fetch(
        self, wanted: Mapping[Kind, Sequence[str]], *, now_us: int
    ) -> dict[Kind, Found]:
        return {kind: self._find(kind, keys, now_us) for kind, keys in wanted.items()}

    def put_many(
        self,
        kind: Kind,
        rows: Sequence[tuple[str, Cells]],
        *,
        now_us: int,
        checked: str = "",
    ) -> None:
        del kind, rows, now_us, checked
        raise _read_only()

    def delete_many(self, kind: Kind, keys: Sequence[str]) -> int:
        del kind, keys
        raise _read_only()

    def close(self) -> None:
        """Nothing to do: the bundle keeps its files."""

    def _find(self, kind: Kind, keys: Sequence[str], now_us: int) -> Found:
        table = self._tables[kind]
        if table is None:
            return Found((None,) * len(keys), now_us)
        place_B = table.find(pa.array(keys, pa.string()))
        known_B = place_B >= 0
        cells = table.take(place_B[known_B], self._columns[kind]).to_pylist()
        found: list[StoredRow | None] = [None] * len(keys)
        for place, row in zip(np.flatnonzero(known_B).tolist(), cells, strict=True):
            told = {n: self._raw(n, v) for n, v in row.items() if v is not None}
            found[place] = StoredRow(told, self._created_us)
        return Found(tuple(found), now_us)

    def _raw(self, name: str, value: Any) -> Any:
        """Write times of events, stored as microseconds, as the raw column does."""
        spec = self._timestamp
        if spec is None or not name.endswith(".time"):
            return value
        return [raw_time(micros, spec) for micros in value]


def _read_only() -> EnvironmentFault:
    return EnvironmentFault(
        "the users and items of a bundle cannot be written; serve with `entities: "
        "{kind: lmdb, ...}` or `{kind: redis, ...}` to store rows of your own"
    )
