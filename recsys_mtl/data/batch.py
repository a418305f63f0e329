"""Encoded Arrow columns -> the tensors of one step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor
from torchrec import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from recsys_mtl.errors import DataError
from recsys_mtl.features.schema import FeatureSchema, label_column, weight_column

__all__ = ["Batch", "EncodedRows", "pooled_keys", "sequence_keys", "to_batch"]

_Ints = npt.NDArray[np.integer]
_Floats = npt.NDArray[np.float32]


@final
@dataclass
class Batch(Pipelineable):  # type: ignore[misc]  # torchrec is untyped
    """Rows ready for the network.

    Attributes:
        pooled: Ids of fields whose table no history shares; keys as ``pooled_keys``.
            ``None`` if there are none.
        sequence: Ids of the other fields and of the histories' events, keys as
            ``sequence_keys``. ``None`` if there are none.
        dense_BM: Numbers, columns as ``schema.dense``.
        label_BT: Labels by task; NaN where the task has none. ``None`` when scoring.
        weight_BT: Row weights by task, on average 1 over the training rows of each.
            ``None`` where no task has any.
    """

    pooled: KeyedJaggedTensor | None
    sequence: KeyedJaggedTensor | None
    dense_BM: Float[Tensor, "batch dense"]
    label_BT: Float[Tensor, "batch tasks"] | None = None
    weight_BT: Float[Tensor, "batch tasks"] | None = None

    @property
    def num_rows(self) -> int:
        """Rows in the batch."""
        return self.dense_BM.shape[0]

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """Copy to ``device``."""
        return Batch(
            None if self.pooled is None else self.pooled.to(device, non_blocking),
            None if self.sequence is None else self.sequence.to(device, non_blocking),
            self.dense_BM.to(device, non_blocking=non_blocking),
            None
            if self.label_BT is None
            else self.label_BT.to(device, non_blocking=non_blocking),
            None
            if self.weight_BT is None
            else self.weight_BT.to(device, non_blocking=non_blocking),
        )

    def record_stream(self, stream: torch.Stream) -> None:
        """Tell the allocator that ``stream`` uses the tensors."""
        for part in (
            self.pooled,
            self.sequence,
            self.dense_BM,
            self.label_BT,
            self.weight_BT,
        ):
            if part is not None:
                part.record_stream(stream)


def pooled_keys(schema: FeatureSchema) -> tuple[str, ...]:
    """Id fields that are read pooled: their tables are no history's."""
    shared = schema.sequence_tables
    return tuple(
        f.name for f in schema.ids if f.name not in shared and not f.history_only
    )


def sequence_keys(schema: FeatureSchema) -> tuple[str, ...]:
    """Id fields that share a table with a history, then the histories' columns."""
    shared = schema.sequence_tables
    return (
        *(f.name for f in schema.ids if f.name in shared and not f.history_only),
        *(column for history in schema.histories for column in history.columns),
    )


@final
@dataclass
class EncodedRows:
    """Encoded columns as arrays, cheap to mix and to cut into batches.

    Attributes:
        pooled: Keys of ``Batch.pooled``.
        sequence: Keys of ``Batch.sequence``.
        ids: By key of a single-valued field, the ids of all rows.
        lists: By key of a list field, its values.
        starts: By key of a list field, where a row's values start in ``lists``.
        lengths: By key of a list field, how many values a row has. Columns of one
            history share these arrays.
        dense_NM: Numbers, columns as ``schema.dense``.
        label_NT: Labels by task; ``None`` without tasks.
        weight_NT: Row weights by task; ``None`` where no task has any.
    """

    pooled: tuple[str, ...]
    sequence: tuple[str, ...]
    ids: dict[str, _Ints]
    lists: dict[str, _Ints]
    starts: dict[str, _Ints]
    lengths: dict[str, _Ints]
    dense_NM: _Floats
    label_NT: _Floats | None
    weight_NT: _Floats | None = None

    @classmethod
    def of(
        cls,
        table: pa.Table,
        schema: FeatureSchema,
        tasks: tuple[str, ...] = (),
        weight_means: Mapping[str, float] | None = None,
        *,
        columns: frozenset[str] | None = None,
    ) -> "EncodedRows":
        """Read the columns of ``table`` that ``schema`` and ``tasks`` name.

        Args:
            table: Encoded rows.
            schema: What the columns mean.
            tasks: Tasks whose labels to read.
            weight_means: By task with row weights, their mean in training: weights are
                divided by it, and one that is missing becomes 1.
            columns: Those of the schema's columns to read, with all columns of a
                history or none; all if left out.
        """
        labels = tuple(label_column(task) for task in tasks)
        known = frozenset(schema.columns) if columns is None else columns
        rows = cls(
            pooled=tuple(key for key in pooled_keys(schema) if key in known),
            sequence=tuple(key for key in sequence_keys(schema) if key in known),
            ids={},
            lists={},
            starts={},
            lengths={},
            dense_NM=_side_by_side(
                table, tuple(name for name in schema.dense if name in known)
            ),
            label_NT=_side_by_side(table, labels) if tasks else None,
            weight_NT=_weights(table, tasks, weight_means) if weight_means else None,
        )
        for key in (*rows.pooled, *rows.sequence):
            array = _array(table, key)
            if not pa.types.is_list(array.type):
                rows.ids[key] = array.to_numpy()
                continue
            offsets = array.offsets.to_numpy()
            rows.lists[key] = array.values.to_numpy()
            rows.starts[key] = offsets[:-1]
            rows.lengths[key] = np.diff(offsets)
        for history in schema.histories:
            if history.columns[0] in known:
                rows._share_lengths(history.columns)
        return rows

    @property
    def num_rows(self) -> int:
        """Rows held."""
        return len(self.dense_NM)

    def values(self, keys: Sequence[str]) -> list[_Ints]:
        """Give all values of some list fields, row after row; not to be written to."""
        places: dict[int, _Ints | slice] = {}
        found = []
        for key in keys:
            starts = self.starts[key]
            place = places.get(id(starts))
            if place is None:
                place = places[id(starts)] = _places(starts, self.lengths[key])
            found.append(self.lists[key][place])
        return found

    def take(self, rows_N: _Ints) -> "EncodedRows":
        """Give row ``rows_N[n]`` in place ``n``; a row may come several times."""
        taken = replace(
            self,
            ids=dict(self.ids),
            starts=dict(self.starts),
            lengths=dict(self.lengths),
        )
        taken.permute(rows_N)
        return taken

    def permute(self, order_N: _Ints) -> None:
        """Put row ``order_N[n]`` in place ``n``; columns are replaced one by one."""
        for key, ids in self.ids.items():
            self.ids[key] = ids[order_N]
        done: dict[int, tuple[_Ints, _Ints]] = {}
        for key, starts in self.starts.items():
            # One permutation for all columns of a history, so that they still share.
            known = done.get(id(starts))
            if known is None:
                known = done[id(starts)] = starts[order_N], self.lengths[key][order_N]
            self.starts[key], self.lengths[key] = known
        self.dense_NM = self.dense_NM[order_N]
        if self.label_NT is not None:
            self.label_NT = self.label_NT[order_N]
        if self.weight_NT is not None:
            self.weight_NT = self.weight_NT[order_N]

    def batch(self, start: int, stop: int) -> Batch:
        """Rows ``start`` to ``stop`` (exclusive) as tensors of their own."""
        return Batch(
            self._jagged(self.pooled, start, stop),
            self._jagged(self.sequence, start, stop),
            torch.from_numpy(self.dense_NM[start:stop].copy()),
            None
            if self.label_NT is None
            else torch.from_numpy(self.label_NT[start:stop].copy()),
            None
            if self.weight_NT is None
            else torch.from_numpy(self.weight_NT[start:stop].copy()),
        )

    def _jagged(
        self, keys: tuple[str, ...], start: int, stop: int
    ) -> KeyedJaggedTensor | None:
        if not keys:
            return None
        num_rows = stop - start
        lengths_FB = np.ones((len(keys), num_rows), dtype=np.int32)
        places: dict[int, _Ints | slice] = {}
        pieces: list[_Ints] = []
        for f, key in enumerate(keys):
            if key in self.ids:
                pieces.append(self.ids[key][start:stop])
                continue
            starts = self.starts[key]
            lengths_B = lengths_FB[f] = self.lengths[key][start:stop]
            if id(starts) not in places:
                places[id(starts)] = _places(starts[start:stop], lengths_B)
            pieces.append(self.lists[key][places[id(starts)]])
        sizes = [len(piece) for piece in pieces]
        values_N = np.empty(sum(sizes), dtype=np.int64)
        place = 0
        for piece, size in zip(pieces, sizes, strict=True):
            values_N[place : place + size] = piece
            place += size
        return KeyedJaggedTensor(
            keys=list(keys),
            values=torch.from_numpy(values_N),
            lengths=torch.from_numpy(lengths_FB.reshape(-1)),
            stride=num_rows,
            length_per_key=sizes,
        )

    def _share_lengths(self, columns: tuple[str, ...]) -> None:
        first, *others = columns
        for other in others:
            if not np.array_equal(self.lengths[first], self.lengths[other]):
                row = np.flatnonzero(self.lengths[first] != self.lengths[other])[0]
                raise DataError(
                    f"columns {first!r} and {other!r} of one history must have "
                    f"equally long lists, got {self.lengths[first][row]} and "
                    f"{self.lengths[other][row]} in row {row} read; rebuild the "
                    "feature tables"
                )
            if np.array_equal(self.starts[first], self.starts[other]):
                self.starts[other] = self.starts[first]
                self.lengths[other] = self.lengths[first]


def to_batch(
    table: pa.Table, schema: FeatureSchema, tasks: tuple[str, ...] = ()
) -> Batch:
    """Lay encoded columns out as tensors.

    Args:
        table: Encoded rows; see ``recsys_mtl.features.schema``.
        schema: What the columns mean.
        tasks: Tasks whose labels to read; none when scoring.
    """
    rows = EncodedRows.of(table, schema, tasks)
    return rows.batch(0, rows.num_rows)


def _array(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    if column.num_chunks == 1:
        return column.chunk(0)
    # No rows, no chunk to combine.
    return (
        pa.concat_arrays(column.chunks)
        if column.num_chunks
        else pa.array([], type=column.type)
    )


def _side_by_side(table: pa.Table, names: tuple[str, ...]) -> _Floats:
    """Columns as one matrix; a null label becomes NaN, which says "no label"."""
    matrix = np.empty((table.num_rows, len(names)), dtype=np.float32)
    for place, name in enumerate(names):
        matrix[:, place] = _array(table, name).to_numpy(zero_copy_only=False)
    return matrix


def _weights(
    table: pa.Table, tasks: tuple[str, ...], means: Mapping[str, float]
) -> _Floats:
    """Row weights, on average 1; those of other tasks and missing ones are 1."""
    matrix = np.ones((table.num_rows, len(tasks)), dtype=np.float32)
    for place, task in enumerate(tasks):
        if task in means:
            raw = _array(table, weight_column(task)).to_numpy(zero_copy_only=False)
            matrix[:, place] = np.where(np.isnan(raw), 1.0, raw / means[task])
    return matrix


def _places(starts_B: _Ints, lengths_B: _Ints) -> _Ints | slice:
    """Places of all values of ragged rows, row after row."""
    if len(starts_B) == 1:
        start = starts_B.item(0)
        return slice(start, start + lengths_B.item(0))
    ends_B = np.cumsum(lengths_B, dtype=np.int64)
    total = int(ends_B[-1]) if len(ends_B) else 0
    shift_B: _Ints = starts_B - (ends_B - lengths_B)
    if total and shift_B[0] == shift_B[-1] and (shift_B == shift_B[0]).all():
        # One row after the other, as they are unless somebody has mixed them.
        return slice(int(shift_B[0]), int(shift_B[0]) + total)
    places_N: _Ints = np.arange(total) + np.repeat(shift_B, lengths_B)
    return places_N
