"""Some rows of a split, each as likely as any other."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_mtl.data.batch import EncodedRows
from recsys_mtl.errors import ArtifactError
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.features.schema import label_column

__all__ = ["read_groups", "sample_rows"]


def sample_rows(
    folder: Path, split: str, *, tasks: tuple[str, ...], limit: int, seed: int = 0
) -> EncodedRows:
    """Read at most ``limit`` rows of a split, drawn by ``seed``, in file order.

    Row groups are read one after the other, so memory does not grow with the split.

    Args:
        folder: A feature-table folder.
        split: ``train``, ``valid`` or ``test``.
        tasks: Tasks whose labels to read.
        limit: Rows at most; all if there are fewer.
        seed: Of the draw.

    Raises:
        ArtifactError: The split has no rows, or a part cannot be read.
    """
    schema = FeatureManifest.load(folder).feature_schema
    parts = _parts(folder / split)
    num_rows = sum(_metadata(part).num_rows for part in parts)
    wanted = np.arange(num_rows)
    if num_rows > limit:
        generator = np.random.default_rng(seed)
        wanted = np.sort(generator.choice(num_rows, limit, replace=False))
    tables, first = [], 0
    columns = [*schema.columns, *(label_column(task) for task in tasks)]
    for table in read_groups(folder / split, columns):
        begin, end = np.searchsorted(wanted, [first, first + table.num_rows])
        tables.append(table.take(wanted[begin:end] - first))
        first += table.num_rows
    return EncodedRows.of(pa.concat_tables(tables), schema, tasks)


def read_groups(folder: Path, columns: list[str]) -> Iterator[pa.Table]:
    """Yield the row groups of a split's parts in file order.

    Args:
        folder: Of the split.
        columns: To read.

    Raises:
        ArtifactError: There is no part with rows, or one cannot be read.
    """
    for part in _parts(folder):
        try:
            with pq.ParquetFile(part) as file:
                for place in range(file.num_row_groups):
                    yield file.read_row_group(place, columns=columns, use_threads=False)
        except (OSError, pa.ArrowInvalid) as fault:
            raise ArtifactError(
                f"{part} cannot be read ({fault}); rebuild the feature tables"
            ) from fault


def _parts(folder: Path) -> list[Path]:
    parts = [
        part
        for part in sorted(folder.glob("part-*.parquet"))
        if _metadata(part).num_rows
    ]
    if not parts:
        raise ArtifactError(
            f"{folder} must have part-*.parquet files with rows, got none; rebuild the "
            "feature tables, or change data.split so that the split has rows"
        )
    return parts


def _metadata(part: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(part)
    except (OSError, pa.ArrowInvalid) as fault:
        raise ArtifactError(
            f"{part} is no readable Parquet file ({fault}); rebuild the feature tables"
        ) from fault
