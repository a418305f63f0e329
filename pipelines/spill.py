"""Rows on disk, dealt out to buckets.

Ray Data can shuffle by hash itself, but its aggregating actors hold the whole table
while they wait for its last row: with two actors and rows of 15 whole numbers, each
took 227 MiB at 2 million rows and 552 MiB at 6 million. Here every task sorts a bounded
number of rows by bucket and writes them to a file of its own, whose n-th record batch
is the n-th bucket; a bucket is then read from all files, and nothing grows with the
table.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_mtl.errors import DataError
from recsys_mtl.features.hashing import stable_hash

__all__ = [
    "ROW",
    "ROW_BITS",
    "SPLIT",
    "TIME",
    "read_bucket",
    "spread",
    "together",
    "write_buckets",
]

ROW = "__row"
"""Column with a number that grows in the order of the source."""

ROW_BITS = 40
"""Low bits of a row's number: its place in its fragment. The fragment is above."""

TIME = "__time"
"""Column with microseconds since 1970, null where there is no readable time."""

SPLIT = "__split"
"""Column with the code of the row's split."""


def spread(row_B: pa.ChunkedArray, keys_B: pa.Array | None) -> npt.NDArray[np.uint64]:
    """A hash of every row's key; rows without one are dealt out evenly.

    Args:
        row_B: Numbers of the rows.
        keys_B: Rows of one key have one hash; every row its own if left out. Keys have
            one type in all files, since the number 1 and the text "1" differ.

    Shape:
        - return: ``(rows,)``
    """
    hash_B = stable_hash(row_B)
    if keys_B is not None:
        known_B = keys_B.is_valid().to_numpy(zero_copy_only=False)
        hash_B[known_B] = stable_hash(keys_B)[known_B]
    return hash_B


def write_buckets(
    table: pa.Table, hash_B: npt.NDArray[np.uint64], num_buckets: int, path: Path
) -> None:
    """Write rows so that the n-th record batch of the file is the n-th bucket."""
    bucket_B = (hash_B % np.uint64(num_buckets)).astype(np.int64)
    table = table.take(pa.array(np.argsort(bucket_B, kind="stable"))).combine_chunks()
    stops = np.cumsum(np.bincount(bucket_B, minlength=num_buckets)).tolist()
    empty = pa.RecordBatch.from_pylist([], schema=table.schema)
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(path, table.schema, options=options) as writer:
        start = 0
        for stop in stops:
            batches = table.slice(start, stop - start).to_batches()
            writer.write_batch(batches[0] if batches else empty)
            start = stop


def read_bucket(files: Sequence[Path], number: int) -> pa.Table:
    """Rows of one bucket from all files, in the order of the files.

    Raises:
        DataError: The files differ in a column's type.
    """
    tables = []
    for path in files:
        with pa.memory_map(str(path)) as file:
            tables.append(pa.table(pa.ipc.open_file(file).get_batch(number)))
    return together(tables)


def together(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of several, in the widest type where they differ.

    Raises:
        DataError: No type holds the values of all.
    """
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(
            f"the files of one source disagree on a type ({error}); write them with "
            "one schema"
        ) from error
