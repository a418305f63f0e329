"""First pass: deal raw rows out, so that one task sees all rows of a user or item."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

import numpy as np
import pyarrow as pa

from pipelines.spill import ROW, ROW_BITS, SPLIT, TIME, spread, together, write_buckets
from recsys_mtl.config.data import DataSpec, TimeSplit
from recsys_mtl.data.fragment import AbstractFragment
from recsys_mtl.data.source import BadLines
from recsys_mtl.data.split import DROPPED, TimeSample, assign_split
from recsys_mtl.features.cast import cast_column
from recsys_mtl.features.column import flat
from recsys_mtl.features.contract import RawContract
from recsys_mtl.features.time import to_micros

__all__ = ["PartitionReport", "PartitionTask", "key_column", "partition"]

_FLUSH_BYTES = 64 << 20
_FLUSH_ROWS = 1 << 19


@final
@dataclass(frozen=True)
class PartitionTask:
    """Neighbouring fragments to deal out.

    Attributes:
        data: What the rows mean.
        contract: Types of the keys.
        fragments: Where the rows are.
        place: Place of the first fragment in the source.
        folder: Where to write.
        num_buckets: Number of buckets.
        item_columns: Columns to deal out by item as well; none if empty.
    """

    data: DataSpec
    contract: RawContract
    fragments: tuple[AbstractFragment, ...]
    place: int
    folder: Path
    num_buckets: int
    item_columns: tuple[str, ...] = ()


@final
@dataclass
class PartitionReport:
    """What some fragments held.

    Attributes:
        rows: Rows that could be read.
        untimed: Rows without a readable time.
        dropped: Rows that belong to no split, counted by reason.
        bad_lines: Lines that could not be read.
        sample: Times, for a split by time.
        by_user: Files with the rows dealt out by user.
        by_item: Files with ``item_columns`` dealt out by item.
    """

    rows: int = 0
    untimed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    bad_lines: BadLines = field(default_factory=BadLines)
    sample: TimeSample = field(default_factory=TimeSample)
    by_user: list[Path] = field(default_factory=list)
    by_item: list[Path] = field(default_factory=list)

    def merge(self, other: "PartitionReport") -> None:
        """Add other fragments."""
        self.rows += other.rows
        self.untimed += other.untimed
        self.dropped += other.dropped
        self.bad_lines.merge(other.bad_lines)
        self.sample.merge(other.sample)
        self.by_user += other.by_user
        self.by_item += other.by_item


def partition(task: PartitionTask) -> PartitionReport:
    """Read some fragments and write their rows by bucket.

    Rows are dealt by user, or evenly where there is none.
    """
    report = PartitionReport()
    waiting: list[pa.Table] = []
    for table in _tagged(task, report):
        waiting.append(table)
        if (
            sum(t.nbytes for t in waiting) > _FLUSH_BYTES
            or sum(t.num_rows for t in waiting) > _FLUSH_ROWS
        ):
            _flush(task, waiting, report)
            waiting = []
    if waiting:
        _flush(task, waiting, report)
    return report


def _tagged(task: PartitionTask, report: PartitionReport) -> Iterator[pa.Table]:
    """Rows with number, time and split; without those that belong to no split."""
    for place, fragment in enumerate(task.fragments, task.place):
        row = place << ROW_BITS
        for table in fragment.read(report.bad_lines):
            row_B = np.arange(row, row + table.num_rows, dtype=np.int64)
            row += table.num_rows
            yield _tag(task.data, fragment, table, row_B, report)


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
        time = flat(to_micros(table.column(data.timestamp.column), data.timestamp))
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
    task: PartitionTask, waiting: list[pa.Table], report: PartitionReport
) -> None:
    table = together(waiting).combine_chunks()
    name = f"{task.place:06d}-{len(report.by_user):04d}.arrow"
    path = task.folder / f"user-{name}"
    hash_B = spread(table.column(ROW), key_column(table, task.contract, "user"))
    write_buckets(table, hash_B, task.num_buckets, path)
    report.by_user.append(path)
    if task.item_columns:
        path = task.folder / f"item-{name}"
        hash_B = spread(table.column(ROW), key_column(table, task.contract, "item"))
        columns = table.select(task.item_columns)
        write_buckets(columns, hash_B, task.num_buckets, path)
        report.by_item.append(path)


def key_column(
    raw: pa.Table, contract: RawContract, of: Literal["user", "item"]
) -> pa.Array | None:
    """The user or item of every row, in one type whatever the file's; or no key."""
    key = contract.keys.user if of == "user" else contract.keys.item
    if key is None:
        return None
    return cast_column(raw.column(key), contract.type_of(key)).array
