"""One id per frequent value."""

from dataclasses import dataclass, field
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.config.feature import VocabularyEncoder
from recsys_mtl.features.column import absent
from recsys_mtl.features.encoders._base import AbstractIds
from recsys_mtl.features.index import ValueIndex
from recsys_mtl.features.schema import MISSING, UNSEEN

__all__ = ["Vocabulary", "VocabularyFit"]


@final
@dataclass(frozen=True)
class Vocabulary(AbstractIds):
    """Known values in the order of their ids, the first of which is 2.

    Example:
        >>> vocabulary = Vocabulary.of(pa.array(["b", "a"]))
        >>> vocabulary.ids(pa.array(["a", "b", "c", None])).tolist()
        [3, 2, 1, 0]
    """

    values: pa.Array
    index: ValueIndex
    id_of_place: np.ndarray

    @classmethod
    def of(cls, values: pa.Array) -> "Vocabulary":
        """Index distinct whole numbers or text."""
        index, order = ValueIndex.of(values)
        # The last entry answers place -1, which is "not found".
        ids = np.append(order + 2, UNSEEN).astype(np.int32)
        return cls(values, index, ids)

    @property
    def size(self) -> int:
        return 2 + len(self.values)

    def ids(self, values: pa.Array) -> np.ndarray:
        ids: np.ndarray = self.id_of_place[self.index.find(values)]
        if values.null_count:
            ids[absent(values)] = MISSING
        return ids


@final
@dataclass
class VocabularyFit:
    """Counts of values; grows with the number of distinct values, not of rows.

    For columns with more distinct values than fit into memory there is the hash
    encoder.
    """

    _counted: pa.Table | None = None
    _pending: list[pa.Table] = field(default_factory=list)
    _pending_rows: int = 0

    def update(self, values: pa.Array) -> None:
        """Count canonical values; nulls do not count."""
        counts = values.drop_null().value_counts()
        self._add(
            pa.table(
                {
                    "value": counts.field("values"),
                    "count": counts.field("counts").cast(pa.int64()),
                }
            )
        )

    def merge(self, other: "VocabularyFit") -> None:
        """Add the counts of another part of the rows."""
        for table in (other._counted, *other._pending):
            if table is not None:
                self._add(table)

    def finish(self, spec: VocabularyEncoder, value_type: pa.DataType) -> Vocabulary:
        """Keep what is frequent enough, most frequent first, ties by value."""
        self._settle()
        if self._counted is None:
            return Vocabulary.of(pa.array([], value_type))
        kept = self._counted.filter(pc.field("count") >= spec.min_count)
        order = pc.sort_indices(
            kept, sort_keys=[("count", "descending"), ("value", "ascending")]
        )
        values = kept.column("value").take(order[: spec.max_size])
        return Vocabulary.of(
            pa.concat_arrays(values.chunks) if len(values) else pa.array([], value_type)
        )

    def _add(self, table: pa.Table) -> None:
        self._pending.append(table)
        self._pending_rows += table.num_rows
        settled = 0 if self._counted is None else self._counted.num_rows
        # Each settling at least doubles what it adds, so the sum stays linear.
        if self._pending_rows > max(1_000_000, settled):
            self._settle()

    def _settle(self) -> None:
        if not self._pending:
            return
        tables = [*self._pending, *([self._counted] if self._counted else [])]
        grouped = pa.concat_tables(tables).group_by("value", use_threads=False)
        counted = grouped.aggregate([("count", "sum")])
        self._counted = counted.select(["value", "count_sum"]).rename_columns(
            ["value", "count"]
        )
        self._pending, self._pending_rows = [], 0
