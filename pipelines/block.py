"""All rows of some users or items, joined and ready to be fitted on or encoded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.partition import key_column
from pipelines.spill import (
    ROW,
    ROW_BITS,
    SPLIT,
    TIME,
    read_bucket,
    spread,
    write_buckets,
)
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.config.task import TaskSpec
from recsys_mtl.data.split import SPLITS, TimeCuts
from recsys_mtl.errors import DataError
from recsys_mtl.features.contract import (
    ITEM_KEY,
    TIME_KEY,
    USER_KEY,
    RawContract,
)
from recsys_mtl.features.counts import FeatureCounts
from recsys_mtl.features.entity import EntityTable
from recsys_mtl.features.events import EventBlock
from recsys_mtl.features.join import FeatureStore
from recsys_mtl.features.label import encode_labels

__all__ = [
    "Block",
    "Dealt",
    "aggregate_items",
    "load_block",
    "load_training_rows",
    "write_piece",
]

_USER = "__user"

SLICE_ROWS = 32_768
"""Rows whose histories are in memory at once."""


@final
@dataclass(frozen=True)
class Dealt:
    """Where the dealt-out rows lie, and what it takes to read them.

    Attributes:
        recipe: What the rows mean.
        contract: What features read of them.
        num_buckets: Number of buckets.
        by_user: Files of rows.
        by_item: Files of rows dealt out by item, if aggregates need them.
        aggregates: Files with the aggregates by item, dealt out by user.
        users: Entity table of users, or ``None``.
        items: Entity table of items, or ``None``.
        cuts: Where a split by time cuts.
        origins: File of every fragment, and number of its first row there.
    """

    recipe: Recipe
    contract: RawContract
    num_buckets: int
    by_user: tuple[Path, ...]
    by_item: tuple[Path, ...]
    aggregates: tuple[Path, ...]
    users: Path | None
    items: Path | None
    cuts: TimeCuts | None
    origins: tuple[tuple[str, int], ...]

    def store(self) -> FeatureStore:
        """Open the entity tables."""
        users, items = (
            None if path is None else EntityTable.load(path)
            for path in (self.users, self.items)
        )
        return FeatureStore(self.contract, users, items)


@final
@dataclass(frozen=True)
class Block:
    """Rows in the order of user, time and source.

    Attributes:
        dealt: What the rows mean.
        rows: Joined, canonical rows.
        code_B: Split of each row, as a position in ``SPLITS``.
        events: What the rows may know of each other.
        counts: By split, unreadable cells and missing keys.
    """

    dealt: Dealt
    rows: pa.Table
    code_B: np.ndarray
    events: EventBlock
    counts: tuple[FeatureCounts, ...]

    def slices(self) -> Iterator[tuple[slice, pa.Table]]:
        """Rows a slice at a time, with their aggregates."""
        for start in range(0, self.rows.num_rows, SLICE_ROWS):
            stop = min(start + SLICE_ROWS, self.rows.num_rows)
            part = self.rows.slice(start, stop - start)
            yield slice(start, stop), _with(part, self.events.aggregates(start, stop))

    def labels(self, part: pa.Table) -> pa.Table:
        """Labels of a slice.

        Raises:
            DataError: A label is wrong; names the file and the row there.
        """
        tasks = self.dealt.recipe.tasks
        try:
            return encode_labels(tasks, part)
        except DataError:
            # Its number is that of a row that was sorted: find the row and ask again.
            while part.num_rows > 1:
                half = part.slice(0, part.num_rows // 2)
                part = part.slice(half.num_rows) if _is_fine(tasks, half) else half
            number = part.column(ROW)[0].as_py()
            path, first = self.dealt.origins[number >> ROW_BITS]
            row = first + (number & ((1 << ROW_BITS) - 1))
            encode_labels(tasks, part, where=path, first_row=row)
            raise

    def duplicates(self) -> int:
        """Rows with the user, item and time of another row."""
        keys = self.rows.select([USER_KEY, ITEM_KEY, TIME_KEY]).drop_null()
        return int(
            keys.num_rows - keys.group_by(keys.column_names).aggregate([]).num_rows
        )


def load_block(dealt: Dealt, bucket: int) -> Block:
    """Read a bucket, join it, and say to which split its rows belong."""
    raw = read_bucket(dealt.by_user, bucket)
    if dealt.aggregates:
        found = read_bucket(dealt.aggregates, bucket)
        raw = _with(
            raw.take(pc.sort_indices(raw.column(ROW))),
            found.take(pc.sort_indices(found.column(ROW))),
        )
    keys = [(TIME, "ascending"), (ROW, "ascending")]
    user = key_column(raw, dealt.contract, "user")
    if user is not None:
        raw = raw.append_column(_USER, user)
        keys.insert(0, (_USER, "ascending"))
    raw = raw.take(pc.sort_indices(raw, sort_keys=keys)).combine_chunks()
    code_B = _codes(dealt, raw)
    store = dealt.store()
    counts = tuple(FeatureCounts() for _ in SPLITS)
    # One split after the other, so that each has counts of its own.
    places = [np.flatnonzero(code_B == code) for code in range(len(SPLITS))]
    joined = [
        store.join(raw.take(pa.array(place)), count)
        for place, count in zip(places, counts, strict=True)
    ]
    back = pa.array(np.argsort(np.concatenate(places)))
    rows = pa.concat_tables(joined).take(back).combine_chunks()
    events = EventBlock(dealt.contract, rows, "user")
    return Block(dealt, rows, code_B, events, counts)


def load_training_rows(dealt: Dealt, bucket: int) -> pa.Table:
    """Read a bucket's training rows, joined."""
    raw = read_bucket(dealt.by_user, bucket)
    train_B = pa.array(_codes(dealt, raw) == SPLITS.index("train"))
    return dealt.store().join(raw.filter(train_B).combine_chunks())


def aggregate_items(dealt: Dealt, folder: Path, bucket: int) -> tuple[Path, Path]:
    """Aggregates by item for the rows of a bucket of items.

    Returns:
        A file with the aggregates of every row, dealt out by user; and one with what
        requests by id need of each item.
    """
    raw = read_bucket(dealt.by_item, bucket)
    keys = [(TIME, "ascending"), (ROW, "ascending")]
    raw = raw.take(pc.sort_indices(raw, sort_keys=keys)).combine_chunks()
    rows = dealt.store().join(raw)
    events = EventBlock(dealt.contract, rows, "item")
    found = events.aggregates().append_column(ROW, rows.column(ROW))
    path = folder / f"aggregates-{bucket:05d}.arrow"
    user = key_column(raw, dealt.contract, "user")
    write_buckets(found, spread(raw.column(ROW), user), dealt.num_buckets, path)
    newest = folder / f"items-{bucket:05d}.arrow"
    write_piece(events.newest(), newest)
    return path, newest


def write_piece(table: pa.Table, path: Path) -> None:
    """Write a table that a later step reads whole."""
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def _codes(dealt: Dealt, raw: pa.Table) -> np.ndarray:
    if dealt.cuts is not None:
        return dealt.cuts.assign(raw.column(TIME).to_numpy())
    codes_B: np.ndarray = raw.column(SPLIT).to_numpy()
    return codes_B


def _with(table: pa.Table, other: pa.Table) -> pa.Table:
    """Columns of both; those of ``other`` win."""
    columns = {name: table.column(name) for name in table.column_names}
    columns |= {name: other.column(name) for name in other.column_names}
    return pa.table(columns)


def _is_fine(tasks: Sequence[TaskSpec], part: pa.Table) -> bool:
    try:
        encode_labels(tasks, part)
    except DataError:
        return False
    return True
