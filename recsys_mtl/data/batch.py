"""Encoded Arrow columns -> the tensors of one step."""

from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor
from torchrec import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from recsys_mtl.features.schema import FeatureSchema, label_column

__all__ = ["Batch", "pooled_keys", "sequence_keys", "to_batch"]


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
    """

    pooled: KeyedJaggedTensor | None
    sequence: KeyedJaggedTensor | None
    dense_BM: Float[Tensor, "batch dense"]
    label_BT: Float[Tensor, "batch tasks"] | None = None

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
        )

    def record_stream(self, stream: torch.Stream) -> None:
        """Tell the allocator that ``stream`` uses the tensors."""
        for part in (self.pooled, self.sequence, self.dense_BM, self.label_BT):
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


def to_batch(
    table: pa.Table, schema: FeatureSchema, tasks: tuple[str, ...] = ()
) -> Batch:
    """Lay encoded columns out as tensors.

    Args:
        table: Encoded rows; see ``recsys_mtl.features.schema``.
        schema: What the columns mean.
        tasks: Tasks whose labels to read; none when scoring.
    """
    num_rows = table.num_rows
    dense_BM = np.empty((num_rows, len(schema.dense)), dtype=np.float32)
    for m, name in enumerate(schema.dense):
        dense_BM[:, m] = table.column(name).to_numpy()
    label_BT = None
    if tasks:
        label_BT = np.empty((num_rows, len(tasks)), dtype=np.float32)
        for t, task in enumerate(tasks):
            # A null becomes NaN here: that is how a batch says "no label".
            label_BT[:, t] = table.column(label_column(task)).to_numpy()
    return Batch(
        _jagged(table, pooled_keys(schema)),
        _jagged(table, sequence_keys(schema)),
        torch.from_numpy(dense_BM),
        None if label_BT is None else torch.from_numpy(label_BT),
    )


def _jagged(table: pa.Table, keys: tuple[str, ...]) -> KeyedJaggedTensor | None:
    if not keys:
        return None
    values: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    ones_B = np.ones(table.num_rows, dtype=np.int32)
    for key in keys:
        column = table.column(key).combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # no rows: no chunk to combine
            column = pa.array([], type=column.type)
        if pa.types.is_list(column.type):
            offsets = column.offsets.to_numpy()
            values.append(column.values.to_numpy()[offsets[0] : offsets[-1]])
            lengths.append(np.diff(offsets).astype(np.int32, copy=False))
        else:
            values.append(column.to_numpy())
            lengths.append(ones_B)
    return KeyedJaggedTensor(
        keys=list(keys),
        values=torch.from_numpy(np.concatenate(values).astype(np.int64)),
        lengths=torch.from_numpy(np.concatenate(lengths)),
    )
