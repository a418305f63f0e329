"""Requests as the network scores them: what candidates share is there once."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_mtl.data.batch import Batch, EncodedRows, pooled_keys, sequence_keys
from recsys_mtl.features.schema import FeatureSchema

__all__ = ["RequestBatch", "SchemaSplit"]


@final
@dataclass(frozen=True)
class SchemaSplit:
    """Which encoded columns all candidates of a request share.

    ``features.shared_column.shared_columns`` tells which. All columns of a history are
    on the same side.

    Attributes:
        schema: Whole, as the network was built on it.
        shared: Encoded columns that are there once a request, in the schema's order.
        own: The others, in the schema's order.
    """

    schema: FeatureSchema
    shared: tuple[str, ...]
    own: tuple[str, ...]

    @classmethod
    def by_columns(
        cls, schema: FeatureSchema, shared: Collection[str]
    ) -> "SchemaSplit":
        """Divide the columns of ``schema``.

        Args:
            schema: As fitted.
            shared: Encoded columns; all those of a history or none.
        """
        split = cls(
            schema,
            tuple(column for column in schema.columns if column in shared),
            tuple(column for column in schema.columns if column not in shared),
        )
        for history in schema.histories:
            sides = {column in shared for column in history.columns}
            assert len(sides) == 1, f"{history.name}: one side for all its columns"
        return split

    @property
    def shared_dense(self) -> tuple[str, ...]:
        """Numbers that are there once a request, in the schema's order."""
        return tuple(name for name in self.schema.dense if name in self.shared)

    @property
    def own_dense(self) -> tuple[str, ...]:
        """The other numbers, in the schema's order."""
        return tuple(name for name in self.schema.dense if name not in self.shared)

    def read_shared(self, table: pa.Table) -> EncodedRows:
        """Read the shared columns of encoded rows, one row a request."""
        return EncodedRows.of(table, self.schema, columns=frozenset(self.shared))

    def read_own(self, table: pa.Table) -> EncodedRows:
        """Read the other columns of encoded rows, one row a candidate."""
        return EncodedRows.of(table, self.schema, columns=frozenset(self.own))


@final
@dataclass(frozen=True)
class RequestBatch:
    """The candidates of some requests, to be scored together.

    Whoever has encoded columns as arrays fills ``EncodedRows`` with them directly;
    ``SchemaSplit.read_shared`` and ``read_own`` read them from Arrow tables. Arrays are
    read, never written, so they may be mapped from a file.

    Attributes:
        split: Which columns are where.
        shared: R rows: ``split.shared``, numbers as ``split.shared_dense``.
        own: N rows: ``split.own``, numbers as ``split.own_dense``.
        request_N: Row of ``shared`` that each row of ``own`` goes with, ascending. A
            request may have no candidates.

    Shape:
        - request_N: ``(candidates,)``, int64
    """

    split: SchemaSplit
    shared: EncodedRows
    own: EncodedRows
    request_N: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        request_N = self.request_N
        assert request_N.dtype == np.int64, "request_N: int64"
        assert request_N.ndim == 1, "request_N: one number a candidate"
        # Columns without numbers still have a matrix, of no columns, with all rows.
        assert len(request_N) == self.own.num_rows, "request_N: one a candidate"
        if len(request_N):
            assert request_N[0] >= 0, "request_N: a row of `shared`"
            assert request_N[-1] < self.shared.num_rows, "request_N: a row of `shared`"
            assert (request_N[1:] >= request_N[:-1]).all(), "request_N: ascending"

    @classmethod
    def of_tables(
        cls,
        split: SchemaSplit,
        shared: pa.Table,
        own: pa.Table,
        request_N: npt.NDArray[np.int64],
    ) -> "RequestBatch":
        """Read encoded tables: R rows with the shared columns, N rows with the rest."""
        return cls(split, split.read_shared(shared), split.read_own(own), request_N)

    @classmethod
    def of_rows(cls, split: SchemaSplit, table: pa.Table) -> "RequestBatch":
        """Read whole encoded rows: every row is a request with one candidate."""
        request_N = np.arange(table.num_rows)
        return cls(split, split.read_shared(table), split.read_own(table), request_N)

    @property
    def num_requests(self) -> int:
        """R."""
        return self.shared.num_rows

    @property
    def num_rows(self) -> int:
        """N, candidates of all requests."""
        return self.own.num_rows

    def joined(self) -> Batch:
        """Repeat what is shared for every candidate: the plain path, N whole rows."""
        split, schema = self.split, self.split.schema
        shared = self.shared.take(self.request_N)
        dense_NM = np.empty((self.num_rows, len(schema.dense)), dtype=np.float32)
        for names, rows in (
            (split.shared_dense, shared),
            (split.own_dense, self.own),
        ):
            places = [schema.dense.index(name) for name in names]
            dense_NM[:, places] = rows.dense_NM
        rows = EncodedRows(
            pooled=pooled_keys(schema),
            sequence=sequence_keys(schema),
            ids=shared.ids | self.own.ids,
            lists=shared.lists | self.own.lists,
            starts=shared.starts | self.own.starts,
            lengths=shared.lengths | self.own.lengths,
            dense_NM=dense_NM,
            label_NT=None,
        )
        return rows.batch(0, rows.num_rows)
