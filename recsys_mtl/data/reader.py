"""Feature tables -> batches, mixed and in bounded memory."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_mtl.data.batch import Batch, EncodedRows
from recsys_mtl.data.prefetch import prefetch
from recsys_mtl.errors import ArtifactError
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.features.schema import FeatureSchema, label_column, weight_column

__all__ = ["FeatureReader"]

_PREFETCHED_BATCHES = 4
"""Enough to bridge the mixing of a buffer while compute eats the last one."""


@dataclass(frozen=True)
class _RowGroup:
    part: Path
    place: int
    num_rows: int


@final
class FeatureReader:
    """Reads one split of a feature-table folder, as one of ``world`` equal workers.

    To mix rows, the row groups of all parts are read in random order into a buffer of
    about ``shuffle_rows`` rows, which is permuted and cut into batches. The order is a
    function of ``seed`` and the epoch's number alone.

    A global batch has ``world * batch_size`` rows, of which worker ``rank`` takes its
    slice, so that all workers take equally many steps. If the rows of the last global
    batch do not divide by ``world``, mixed reading drops the remainder (see
    ``dropped_rows``); reading in order repeats the last row instead, and ``merge``
    leaves the repetitions out.

    Args:
        folder: A feature-table folder.
        split: ``train``, ``valid`` or ``test``.
        batch_size: Rows a worker takes in a step.
        tasks: Tasks whose labels to read.
        shuffle_rows: Rows mixed in memory; in order if left out.
        seed: Seed of the order.
        rank: This worker.
        world: Number of workers.

    Raises:
        ArtifactError: A part is missing or cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        *,
        batch_size: int,
        tasks: tuple[str, ...],
        shuffle_rows: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        manifest = FeatureManifest.load(folder)
        self.schema: FeatureSchema = manifest.feature_schema
        self.batch_size = batch_size
        self.tasks = tasks
        self.rank = rank
        self.world = world
        self._shuffle_rows = shuffle_rows
        self._seed = seed
        self._groups = _row_groups(folder / split)
        self._columns = [
            *self.schema.columns,
            *(label_column(task) for task in tasks),
        ]
        # Only training weighs rows.
        self._weight_means = _weight_means(manifest, tasks) if split == "train" else {}
        self._columns += map(weight_column, self._weight_means)

    @property
    def num_rows(self) -> int:
        """Rows of the split."""
        return sum(group.num_rows for group in self._groups)

    @property
    def dropped_rows(self) -> int:
        """Rows an epoch leaves out, so that all workers take equally many."""
        if self._shuffle_rows is None:
            return 0
        return self.num_rows % self._global_size % self.world

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch, the same for every worker."""
        return -((self.dropped_rows - self.num_rows) // self._global_size)

    def epoch(self, number: int, *, start: int = 0) -> Generator[Batch, None, None]:
        """Yield this worker's batches of epoch ``number``, from step ``start`` on."""
        return prefetch(self._batches(number, start), _PREFETCHED_BATCHES)

    def merge(self, parts: list[np.ndarray]) -> np.ndarray:
        """Put what each worker made of its rows, read in order, back in file order."""
        size, full = self.batch_size, self.num_rows // self._global_size
        whole = [
            part[: full * size].reshape(full, size, *part.shape[1:]) for part in parts
        ]
        steps = np.stack(whole, axis=1)
        rest = np.concatenate([part[full * size :] for part in parts])
        # Not -1: a matrix without columns does not tell its number of rows.
        num_rows = full * self.world * size
        rows = np.concatenate([steps.reshape(num_rows, *parts[0].shape[1:]), rest])
        return rows[: self.num_rows]

    def users(self) -> np.ndarray | None:
        """Number who saw each row, in file order; ``None`` if rows name no user."""
        codes: dict[object, int] = {}
        parts = []
        for path in dict.fromkeys(group.part for group in self._groups):
            if "key.user" not in pq.read_schema(path).names:
                return None
            column = pq.read_table(path, columns=["key.user"]).column(0)
            keys = column.combine_chunks().dictionary_encode()
            known = [
                codes.setdefault(k, len(codes)) for k in keys.dictionary.to_pylist()
            ]
            # A missing user is a user, numbered -1.
            places = keys.indices.fill_null(len(known)).to_numpy()
            parts.append(np.array([*known, -1])[places])
        return np.concatenate(parts)

    @property
    def _global_size(self) -> int:
        return self.world * self.batch_size

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        generator = np.random.default_rng((self._seed, epoch))
        step = 0
        for rows in self._buffers(generator):
            for first in range(0, rows.num_rows, self._global_size):
                share = min(self._global_size, rows.num_rows - first) // self.world
                if step >= start and share:
                    begin = first + self.rank * share
                    yield rows.batch(begin, begin + share)
                step += 1
            # Else this buffer would live on while the next one is read.
            del rows

    def _buffers(self, generator: np.random.Generator) -> Iterator[EncodedRows]:
        """Rows by the buffer; all but the last hold whole global batches."""
        mixed = self._shuffle_rows is not None
        wanted = max(self._shuffle_rows or 0, self._global_size)
        tables: list[pa.Table] = []
        places = np.arange(len(self._groups))
        if mixed:
            generator.shuffle(places)
        for count, place in enumerate(places, start=1):
            tables.append(self._read(self._groups[place]))
            last = count == len(places)
            if sum(map(len, tables)) < wanted and not last:
                continue
            table = pa.concat_tables(tables)
            order = np.arange(table.num_rows)
            if mixed:
                generator.shuffle(order)
            full = table.num_rows // self._global_size * self._global_size
            if last:
                full = table.num_rows
                if not mixed:
                    order = np.pad(order, (0, -full % self.world), mode="edge")
                    full = len(order)
            tables = [table.take(np.sort(order[full:]))]
            rows = EncodedRows.of(table, self.schema, self.tasks, self._weight_means)
            del table
            pa.default_memory_pool().release_unused()
            if mixed or full != rows.num_rows:
                rows.permute(order[:full])
            yield rows
            del rows

    def _read(self, group: _RowGroup) -> pa.Table:
        try:
            with pq.ParquetFile(group.part) as file:
                return file.read_row_group(
                    group.place, columns=self._columns, use_threads=False
                )
        except (OSError, pa.ArrowInvalid) as fault:
            raise ArtifactError(
                f"row group {group.place} of {group.part} cannot be read ({fault}); "
                "rebuild the feature tables"
            ) from fault


def _weight_means(
    manifest: FeatureManifest, tasks: tuple[str, ...]
) -> dict[str, float]:
    """Mean row weight of each task that has row weights."""
    means = {}
    for task in tasks:
        stats = manifest.tasks.get(task, {}).get("train")
        if stats is not None and stats.weight_mean is not None:
            means[task] = stats.weight_mean
    return means


def _row_groups(folder: Path) -> tuple[_RowGroup, ...]:
    groups = []
    for part in sorted(folder.glob("part-*.parquet")):
        try:
            metadata = pq.read_metadata(part)
        except (OSError, pa.ArrowInvalid) as fault:
            raise ArtifactError(
                f"{part} is no readable Parquet file ({fault}); rebuild the feature "
                "tables"
            ) from fault
        groups += [
            _RowGroup(part, place, metadata.row_group(place).num_rows)
            for place in range(metadata.num_row_groups)
        ]
    if not any(group.num_rows for group in groups):
        raise ArtifactError(
            f"{folder} must have part-*.parquet files with rows, got none; rebuild the "
            "feature tables, or change data.split so that the split has rows"
        )
    return tuple(groups)
