"""A piece of a raw source that one task reads by itself."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import pyarrow as pa
import pyarrow.parquet as pq

from recsys_mtl.config.source import SimulatorSource
from recsys_mtl.data.simulator import Simulator
from recsys_mtl.errors import DataError

__all__ = [
    "BATCH_ROWS",
    "AbstractFragment",
    "ArrowFragment",
    "BadLines",
    "ParquetFragment",
    "SimulatorFragment",
    "open_arrow",
    "plain_schema",
]

BATCH_ROWS = 65_536
"""Most rows that a fragment hands out at once."""

_REMEMBERED_LINES = 5


@final
@dataclass
class BadLines:
    """Lines of delimited text that were skipped.

    Attributes:
        count: How many.
        first: Where the first few stood and what was wrong with them.
    """

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        """Count one line; ``sentence`` says where and why."""
        self.count += 1
        if len(self.first) < _REMEMBERED_LINES:
            self.first.append(sentence)

    def merge(self, other: "BadLines") -> None:
        """Add the lines of another fragment."""
        self.count += other.count
        self.first = [*self.first, *other.first][:_REMEMBERED_LINES]


class AbstractFragment(ABC):
    """One file, a range of one, or a chunk of simulated rows.

    Small and picklable: it names rows and holds none.
    """

    path: str
    columns: tuple[str, ...]

    @property
    @abstractmethod
    def size(self) -> int | None:
        """Rows, where that is known without reading them."""

    @abstractmethod
    def read(self, bad_lines: BadLines | None = None) -> Iterator[pa.Table]:
        """Yield the rows in order, at most ``BATCH_ROWS`` of them at a time.

        Args:
            bad_lines: Gains the lines that were skipped.

        Raises:
            DataError: The file is damaged.
        """

    @property
    def file_name(self) -> str:
        """Last part of the path."""
        return Path(self.path).name


@final
@dataclass(frozen=True)
class ParquetFragment(AbstractFragment):
    """Some neighbouring row groups of a Parquet file."""

    path: str
    columns: tuple[str, ...]
    row_groups: tuple[int, ...]
    num_rows: int

    @property
    def size(self) -> int | None:
        return self.num_rows

    def read(self, bad_lines: BadLines | None = None) -> Iterator[pa.Table]:
        del bad_lines
        # Without pre-buffering and with small pages a row group of any size streams.
        with pq.ParquetFile(self.path, buffer_size=1 << 20, pre_buffer=False) as file:
            batches = file.iter_batches(
                batch_size=BATCH_ROWS,
                row_groups=list(self.row_groups),
                columns=list(self.columns),
                use_threads=False,
            )
            try:
                for batch in batches:
                    yield _plain(batch, self.columns)
            except (pa.ArrowException, OSError) as error:
                raise DataError(
                    f"{self.path} breaks off while it is read ({error}); "
                    "write the file anew"
                ) from error


@final
@dataclass(frozen=True)
class ArrowFragment(AbstractFragment):
    """An Arrow IPC file of either format."""

    path: str
    columns: tuple[str, ...]

    @property
    def size(self) -> int | None:
        return None

    def read(self, bad_lines: BadLines | None = None) -> Iterator[pa.Table]:
        del bad_lines
        with pa.memory_map(self.path) as file:
            reader = open_arrow(file, self.path)
            try:
                for batch in _batches(reader):
                    table = _plain(batch, self.columns)
                    for start in range(0, table.num_rows, BATCH_ROWS):
                        yield table.slice(start, BATCH_ROWS)
            except (pa.ArrowException, OSError) as error:
                raise DataError(
                    f"{self.path} breaks off while it is read ({error}); "
                    "write the file anew"
                ) from error


@final
@dataclass(frozen=True)
class SimulatorFragment(AbstractFragment):
    """One chunk of the simulator."""

    spec: SimulatorSource
    chunk: int
    columns: tuple[str, ...]
    path: str = "simulator"

    @property
    def size(self) -> int | None:
        return Simulator(self.spec).chunk_rows(self.chunk)

    def read(self, bad_lines: BadLines | None = None) -> Iterator[pa.Table]:
        del bad_lines
        table = Simulator(self.spec).chunk(self.chunk).select(self.columns)
        for start in range(0, table.num_rows, BATCH_ROWS):
            yield table.slice(start, BATCH_ROWS)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of rows as fragments hand them out: without dictionary types."""
    return pa.schema(
        [
            (f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type)
            for f in schema
        ]
    )


def open_arrow(
    file: pa.NativeFile, path: str
) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    """Open either format of Arrow IPC.

    Raises:
        DataError: It is neither.
    """
    try:
        return pa.ipc.open_file(file)
    except pa.ArrowInvalid:
        file.seek(0)
    try:
        return pa.ipc.open_stream(file)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path} is not an Arrow IPC file ({error}); name its true `kind` in the "
            "recipe, or write it anew"
        ) from error


def _plain(batch: pa.RecordBatch, columns: tuple[str, ...]) -> pa.Table:
    """Wanted columns, those of dictionary type as their values.

    Batches have dictionaries of their own, so they would not go into one file.
    """
    table = pa.table(batch).select(columns)
    return table.cast(plain_schema(table.schema))


def _batches(
    reader: pa.RecordBatchFileReader | pa.RecordBatchStreamReader,
) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.RecordBatchFileReader):
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)
    else:
        yield from reader
