"""First pass: deal raw rows out to buckets, so that a task sees all rows of a user.

Ray Data can shuffle by hash itself, but its aggregating actors hold the whole table
while they wait for its last row: with two actors and rows of 15 whole numbers, each
took 227 MiB at 2 million rows and 552 MiB at 6 million. Here every task sorts a bounded
number of rows by bucket and writes them to a file of its own, whose n-th record batch
is the n-th bucket; a bucket is then read from all files, and nothing grows with the
table.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.config.data import DataSpec, TimeSplit
from recsys_mtl.data.fragment import AbstractFragment
from recsys_mtl.data.source import BadLines
from recsys_mtl.data.split import DROPPED, TimeSample, assign_split
from recsys_mtl.errors import DataError
from recsys_mtl.features.hashing import flat, stable_hash
from recsys_mtl.features.time import to_micros

__all__ = [
    "ROW",
    "SPLIT",
    "TIME",
    "Bucket",
    "PartitionReport",
    "PartitionTask",
    "partition",
]

ROW = "__row"
"""Column with a number that grows in the order of the source."""

TIME = "__time"
"""Column with microseconds since 1970, null where there is no readable time."""

SPLIT = "__split"
"""Column with the code of the row's split."""

_FLUSH_BYTES = 64 << 20
_FLUSH_ROWS = 1 << 19
_ROW_BITS = 40


@final
@dataclass(frozen=True)
class PartitionTask:
    """Neighbouring fragments to deal out.

    Attributes:
        fragments: Where the rows are.
        place: Place of the first fragment in the source.
        folder: Where to write.
        num_buckets: Number of buckets.
    """

    fragments: tuple[AbstractFragment, ...]
    place: int
    folder: Path
    num_buckets: int


@final
@dataclass
class PartitionReport:
    """What some fragments held."""

    rows: int = 0
    untimed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    bad_lines: BadLines = field(default_factory=BadLines)
    sample: TimeSample = field(default_factory=TimeSample)
    files: list[Path] = field(default_factory=list)

    def merge(self, other: "PartitionReport") -> None:
        """Add other fragments."""
        self.rows += other.rows
        self.untimed += other.untimed
        self.dropped += other.dropped
        self.bad_lines.merge(other.bad_lines)
        self.sample.merge(other.sample)
        self.files += other.files


@final
@dataclass(frozen=True)
class Bucket:
    """All rows of some users.

    Attributes:
        number: Which bucket.
        files: Files that all tasks wrote.
        by_user: Column of the user, if rows are dealt by it.
    """

    number: int
    files: tuple[Path, ...]
    by_user: str | None

    def read(self) -> pa.Table:
        """Rows in the order of user, time and source."""
        tables = []
        for path in self.files:
            with pa.memory_map(str(path)) as file:
                reader = pa.ipc.open_file(file)
                tables.append(pa.table(reader.get_batch(self.number)))
        try:
            table = pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowException as error:
            raise DataError(
                f"the files of the interactions disagree on a type ({error}); write "
                "them with one schema"
            ) from error
        keys = [(TIME, "ascending"), (ROW, "ascending")]
        if self.by_user is not None:
            keys.insert(0, (self.by_user, "ascending"))
        return table.take(pc.sort_indices(table, sort_keys=keys)).combine_chunks()


def partition(data: DataSpec, task: PartitionTask) -> PartitionReport:
    """Read some fragments and write their rows by bucket.

    Rows are dealt by user, or evenly where there is none.
    """
    report = PartitionReport()
    waiting: list[pa.Table] = []
    for table in _tagged(data, task, report):
        waiting.append(table)
        if (
            sum(t.nbytes for t in waiting) > _FLUSH_BYTES
            or sum(t.num_rows for t in waiting) > _FLUSH_ROWS
        ):
            report.files.append(_flush(data, task, waiting, len(report.files)))
            waiting = []
    if waiting:
        report.files.append(_flush(data, task, waiting, len(report.files)))
    return report


def _tagged(
    data: DataSpec, task: PartitionTask, report: PartitionReport
) -> Iterator[pa.Table]:
    """Rows with number, time and split; without those that belong to no split."""
    for place, fragment in enumerate(task.fragments, task.place):
        row = place << _ROW_BITS
        for table in fragment.read(report.bad_lines):
            row_B = np.arange(row, row + table.num_rows, dtype=np.int64)
            row += table.num_rows
            yield _tag(data, fragment, table, row_B, report)


def _tag(
    data: DataSpec,
    fragment: AbstractFragment,
    table: pa.Table,
    row_B: np.ndarray,
    report: PartitionReport,
) -> pa.Table:
    report.rows += table.num_rows
    time = pa.nulls(table.num_rows, pa.int64())
    if data.timestamp is not None:
        column = table.column(data.timestamp.column).combine_chunks()
        time = to_micros(column, data.timestamp)
        report.untimed += time.null_count
    assigned = assign_split(
        data.split, table, file_name=fragment.file_name, time_us=time
    )
    report.dropped.update(assigned.dropped)
    kept_B = assigned.code_B != DROPPED
    if isinstance(data.split, TimeSplit):
        report.sample.update(time.filter(pa.array(kept_B)).to_numpy(), row_B[kept_B])
    table = table.append_column(ROW, pa.array(row_B))
    table = table.append_column(TIME, time)
    table = table.append_column(SPLIT, pa.array(assigned.code_B))
    return table.filter(pa.array(kept_B))


def _flush(
    data: DataSpec, task: PartitionTask, waiting: list[pa.Table], number: int
) -> Path:
    table = pa.concat_tables(waiting).combine_chunks()
    bucket_B = _bucket(data, table) % np.uint64(task.num_buckets)
    table = table.take(pa.array(np.argsort(bucket_B, kind="stable")))
    counts = np.bincount(bucket_B.astype(np.int64), minlength=task.num_buckets)
    path = task.folder / f"{task.place:06d}-{number:04d}.arrow"
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(path, table.schema, options=options) as writer:
        start = 0
        for count in counts.tolist():
            rows = table.slice(start, count).combine_chunks().to_batches()
            empty = pa.RecordBatch.from_pylist([], schema=table.schema)
            writer.write_batch(rows[0] if rows else empty)
            start += count
    return path


def _bucket(data: DataSpec, table: pa.Table) -> npt.NDArray[np.uint64]:
    hash_B = stable_hash(table.column(ROW))
    if data.keys.user is not None:
        user = flat(table.column(data.keys.user))
        known_B = user.is_valid().to_numpy(zero_copy_only=False)
        hash_B[known_B] = stable_hash(user)[known_B]
    return hash_B
