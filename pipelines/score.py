"""Batch scoring on Ray Data: a table of raw rows in, a table of predictions out."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data import ActorPoolStrategy
from ray.util.annotations import RayDeprecationWarning

from pipelines.folder import whole
from pipelines.ray_session import ray_session
from recsys_mtl.config.source import ArrowSource, CsvSource, ParquetSource
from recsys_mtl.data.fragment import AbstractFragment, BadLines
from recsys_mtl.data.source import open_source, source_schema
from recsys_mtl.errors import DataError
from recsys_mtl.progress import OnProgress, Progress, silent

if TYPE_CHECKING:
    from recsys_mtl.export.bundle import Bundle

__all__ = ["score_table"]

_MADE = ("score", "known_user", "known_item")
_BATCH_ROWS = 8_192
_PART_ROWS = 1_000_000
# A core has room for one scorer and one reader, so neither waits for the other forever.
_SCORER_CORES, _READER_CORES = 0.75, 0.25


def score_table(
    bundle: Path,
    source: Path,
    output: Path,
    *,
    num_cpus: int | None = None,
    verbose: bool = False,
    on_progress: OnProgress = silent,
) -> int:
    """Predict every row of a table, in its order.

    Writes keys and timestamp as they came, a column per task and one
    ``<task>.<detail>`` per detail that it has, ``score``, ``known_user`` and
    ``known_item``.

    Args:
        bundle: Folder of the bundle.
        source: A file or folder of Parquet, Arrow IPC (``.arrow``, ``.feather``) or
            text (``.csv``, ``.tsv``, gzip-compressed or not), with the columns of the
            impression; those of users and items may be left out.
        output: A file if it ends in ``.parquet``, else a folder of parts. What is
            there is replaced once the new one is complete.
        num_cpus: Cores to use; all if left out.
        verbose: Whether Ray may write to the console.
        on_progress: Told of rows done.

    Returns:
        Number of rows.

    Raises:
        ArtifactError: The bundle cannot be used.
        DataError: The input lacks a column, or has a line that cannot be read.
    """
    # Not above, since it brings torch along.
    from recsys_mtl.export.bundle import load_bundle

    spec = _source(source)
    keys, wanted = _columns(load_bundle(bundle), source_schema(spec).names)
    fragments = open_source(spec, wanted)
    sizes = [fragment.size for fragment in fragments]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    with whole(output) as path, ray_session(num_cpus, verbose) as cores:
        rows = 0
        with _Output(path) as out:
            for table in _scored(bundle, fragments, keys, cores):
                out.write(table)
                rows += table.num_rows
                on_progress(Progress("score", rows, total))
    return rows


def _source(path: Path) -> ParquetSource | ArrowSource | CsvSource:
    """Tell the kind of the input by its name, a folder's by that of its files."""
    names = [path.name]
    if path.is_dir():
        names = sorted(file.name for file in path.iterdir() if file.is_file())
    for name in names:
        kind = name.removesuffix(".gz").rpartition(".")[2]
        match kind:
            case "parquet" | "pq":
                return ParquetSource(kind="parquet", path=str(path))
            case "arrow" | "feather" | "ipc":
                return ArrowSource(kind="arrow", path=str(path))
            case "csv" | "txt":
                return CsvSource(kind="csv", path=str(path))
            case "tsv":
                return CsvSource(kind="csv", path=str(path), delimiter="\t")
    raise DataError(
        f"{path} is of no known kind; its name, or those of its files, must end in "
        ".parquet, .arrow, .feather, .csv or .tsv (text also with .gz)"
    )


def _columns(
    bundle: "Bundle", have: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns to hand on, and columns to read.

    What describes the impression must be there; the rest is looked up by key.
    """
    data = bundle.recipe.data
    time = None if data.timestamp is None else data.timestamp.column
    handed_on = tuple(c for c in (data.keys.user, data.keys.item, time) if c)
    needed = dict.fromkeys(handed_on)
    for column in bundle.signature:
        if column.origin == "context" and not column.history_only:
            needed[column.name] = None
    given = [c.name for c in bundle.signature if c.name in have]
    tasks = zip(bundle.recipe.tasks, bundle.network.detail_names, strict=True)
    details = (f"{task.name}.{name}" for task, names in tasks for name in names)
    made = {*(task.name for task in bundle.recipe.tasks), *details, *_MADE}
    taken = sorted(made & set(handed_on))
    if taken:
        raise DataError(
            f"key {taken[0]!r} has the name of a column of predictions; rename it in "
            "the recipe and in the input"
        )
    return handed_on, tuple(dict.fromkeys([*needed, *given]))


def _scored(
    bundle: Path,
    fragments: Sequence[AbstractFragment],
    keys: tuple[str, ...],
    cores: int,
) -> Iterator[pa.Table]:
    def read(batch: Any) -> Iterator[pa.Table]:
        bad_lines = BadLines()
        for number in batch["fragment"].tolist():
            for table in fragments[number].read(bad_lines):
                if bad_lines.count == 0:
                    yield table
            if bad_lines.count:
                # Predictions must stay beside their rows.
                raise DataError(
                    f"{bad_lines.first[0]}, and {bad_lines.count - 1} more such lines; "
                    "correct them, so that no row goes without a prediction"
                )

    numbers = [{"fragment": i} for i in range(len(fragments))]
    rows = ray.data.from_items(numbers, override_num_blocks=len(numbers))
    with warnings.catch_warnings():
        # Ray 2.60 calls ``ray_remote_args_fn`` deprecated and has nothing in its place.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        scored = rows.map_batches(
            read, batch_size=1, num_cpus=_READER_CORES
        ).map_batches(
            _Scorer,
            fn_constructor_args=(bundle, keys),
            batch_size=_BATCH_ROWS,
            batch_format="pyarrow",
            num_cpus=_SCORER_CORES,
            compute=ActorPoolStrategy(min_size=1, max_size=cores),
            # With restarts, Ray writes to the console what a lost object would do.
            ray_remote_args_fn=lambda: {"max_restarts": 0, "max_task_retries": 0},
        )
    yield from scored.iter_batches(batch_size=None, batch_format="pyarrow")


@final
class _Scorer:
    """One process that scores, with the bundle loaded once."""

    def __init__(self, bundle: Path, keys: tuple[str, ...]) -> None:
        import torch

        from recsys_mtl.export.bundle import load_bundle
        from recsys_mtl.rank.ranker import Ranker

        torch.set_num_threads(1)
        # The caller has verified it.
        self._ranker = Ranker(load_bundle(bundle, verify=False))
        self._keys = keys

    def __call__(self, raw: pa.Table) -> pa.Table:
        scored = self._ranker.score(raw, details=True)
        columns = {name: raw.column(name) for name in self._keys}
        for t, task in enumerate(self._ranker.tasks):
            columns[task] = pa.array(scored.prediction_BT[:, t])
            for name, detail_B in scored.details.get(task, {}).items():
                columns[f"{task}.{name}"] = pa.array(detail_B)
        made = (scored.score_B, scored.known_user_B, scored.known_item_B)
        return pa.table(columns | dict(zip(_MADE, map(pa.array, made), strict=True)))


@final
class _Output:
    """One Parquet file, or a folder of parts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None
        self._parts = 0
        self._part_rows = 0

    def __enter__(self) -> "_Output":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def write(self, table: pa.Table) -> None:
        single = self._path.suffix == ".parquet"
        if not single and self._part_rows >= _PART_ROWS:
            self._close()
        if self._writer is None:
            path = self._path
            if not single:
                path.mkdir(exist_ok=True)
                path = path / f"part-{self._parts:05d}.parquet"
            self._writer = pq.ParquetWriter(path, table.schema, compression="zstd")
            self._parts += 1
        self._writer.write_table(table)
        self._part_rows += table.num_rows

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._part_rows = None, 0
