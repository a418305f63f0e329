"""A few features of a bundle from raw cells: as much of the plain path as needed."""

from collections.abc import Collection
from functools import lru_cache
from typing import Final, final

import pyarrow as pa

from recsys_mtl.config.feature import TimePartFeature
from recsys_mtl.features.contract import HIT, TIME, event_column
from recsys_mtl.features.entity import EntityTable
from recsys_mtl.features.featurizer import Featurizer
from recsys_mtl.features.join import FeatureStore

__all__ = ["FeatureSlice", "FeatureSlices"]

_KEPT: Final = 256


@final
class FeatureSlice:
    """Joins and encodes some features as ``Ranker.score`` does all.

    Args:
        featurizer: Of the bundle.
        store: Of the bundle.
        names: Which features.

    Attributes:
        reads: Raw columns that these features read, with keys and timestamp.
    """

    def __init__(
        self, featurizer: Featurizer, store: FeatureStore, names: Collection[str]
    ) -> None:
        self._featurizer = featurizer.only(names)
        contract = self._featurizer.contract
        self.reads = frozenset(column.name for column in contract.signature) | {
            column
            for history in contract.histories
            for column in contract.reads(history)
        }
        stored = self.reads | {
            event_column(aggregate.name, part)
            for aggregate in contract.aggregates
            for part in (TIME, HIT)
        }
        users, items = _columns(store.users, stored), _columns(store.items, stored)
        self._store = FeatureStore(contract, users, items)
        timed = any(isinstance(f, TimePartFeature) for f in contract.features)
        self._joins_always = bool(contract.histories or contract.aggregates or timed)
        self._fillable = frozenset(
            name
            for table in (users, items)
            if table is not None
            for name in table.columns
            if name not in contract.stored_lists
        )

    def encode(self, raw: pa.Table) -> pa.Table:
        """Join and encode rows; columns are those of the features, in their order."""
        if not self._joins_always and self._is_full(raw):
            rows = self._featurizer.contract.canonical(raw, keep_codes=True)
            if self._is_full(rows):  # no cell was unreadable
                # Nothing is left for the store to fill: half of the time is saved.
                return self._featurizer.encode(rows, canonical=True)
        assembled = self._store.assemble(raw)
        return self._featurizer.encode(
            assembled.raw, assembled.histories, canonical=True
        )

    def _is_full(self, rows: pa.Table) -> bool:
        given = frozenset(rows.column_names)
        return self._fillable <= given and not any(
            rows.column(name).null_count for name in self._fillable
        )


@final
class FeatureSlices:
    """Slices made when first asked for; the latest few are kept.

    Args:
        featurizer: Of the bundle.
        store: Of the bundle.
    """

    def __init__(self, featurizer: Featurizer, store: FeatureStore) -> None:
        self.of = lru_cache(_KEPT)(lambda names: FeatureSlice(featurizer, store, names))


def _columns(table: EntityTable | None, names: Collection[str]) -> EntityTable | None:
    if table is None:
        return None
    kept = [name for name in table.rows.column_names if name in (table.key, *names)]
    return EntityTable(table.key, table.rows.select(kept), table.index)
