"""Delimited text as a stream of text columns."""

import csv
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast, final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as pacsv

from recsys_mtl.config.source import CsvSource
from recsys_mtl.data.fragment import BATCH_ROWS, AbstractFragment, BadLines
from recsys_mtl.errors import DataError

__all__ = ["NULL_TEXTS", "CsvFragment", "csv_columns"]

NULL_TEXTS = ("", "NA", "NaN", "null", "\\N")
"""Cells that mean a missing value, quoted or not."""

_BLOCK_BYTES = 4 << 20


def csv_columns(spec: CsvSource, path: str) -> tuple[str, ...]:
    """Names of the columns of one file.

    Raises:
        DataError: The first line does not fit, or names a column twice.
    """
    try:
        with _open_text(path) as file:
            reader = csv.reader(file, delimiter=spec.delimiter)
            first = next(reader, None)
    except (OSError, EOFError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error
    if not first:
        raise DataError(f"{path} is empty; remove it, or name another file")
    if spec.column_names is not None:
        if len(first) != len(spec.column_names):
            raise DataError(
                f"{path} has {len(first)} values in its first line, but column_names "
                f"gives {len(spec.column_names)} names; check column_names and "
                f"delimiter {spec.delimiter!r}"
            )
        return spec.column_names
    names = tuple(name.strip() if spec.strip else name for name in first)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path} has more than one column named {', '.join(map(repr, twice))}; "
            "rename them upstream, or give column_names if there is no header line"
        )
    return names


@final
@dataclass(frozen=True)
class CsvFragment(AbstractFragment):
    """One file of delimited text; every column is text.

    A line with too many or too few values is skipped and counted. Bytes that are not
    UTF-8 become U+FFFD.

    Attributes:
        path: The file, gzip-compressed where the name ends in ``.gz``.
        columns: Columns to read.
        names: All columns of the file, in order.
        delimiter: Between values.
        has_header: Whether the first line holds the names.
        strip: Whether to strip blanks around every value.
    """

    path: str
    columns: tuple[str, ...]
    names: tuple[str, ...]
    delimiter: str
    has_header: bool
    strip: bool

    @property
    def size(self) -> int | None:
        return None

    def read(self, bad_lines: BadLines | None = None) -> Iterator[pa.Table]:
        bad = BadLines() if bad_lines is None else bad_lines

        def skip(row: pacsv.InvalidRow) -> str:
            bad.add(
                f"{self.path} line {row.number}: {row.actual_columns} values for "
                f"{row.expected_columns} columns"
            )
            return "skip"

        compression = "gzip" if self.path.endswith(".gz") else None
        try:
            with (
                pa.input_stream(self.path, compression=compression) as file,
                pacsv.open_csv(
                    file,
                    # Rows have numbers only when one thread reads them.
                    read_options=pacsv.ReadOptions(
                        use_threads=False,
                        block_size=_BLOCK_BYTES,
                        column_names=self.names,
                        skip_rows=int(self.has_header),
                    ),
                    parse_options=pacsv.ParseOptions(
                        delimiter=self.delimiter,
                        newlines_in_values=True,
                        invalid_row_handler=skip,
                    ),
                    convert_options=pacsv.ConvertOptions(
                        include_columns=self.columns,
                        column_types=dict.fromkeys(self.names, pa.binary()),
                        null_values=NULL_TEXTS,
                        strings_can_be_null=True,
                    ),
                ) as reader,
            ):
                for batch in reader:
                    table = pa.table(
                        {
                            name: self._text(batch.column(i))
                            for i, name in enumerate(self.columns)
                        }
                    )
                    for start in range(0, table.num_rows, BATCH_ROWS):
                        yield table.slice(start, BATCH_ROWS)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise DataError(
                f"{self.path} cannot be read as text delimited by "
                f"{self.delimiter!r}: {error}; look for an unclosed quote or a "
                "damaged file"
            ) from error

    def _text(self, column: pa.Array) -> pa.Array:
        try:
            text = column.cast(pa.string())
        except pa.ArrowInvalid:
            text = pa.array(
                [
                    None if value is None else value.decode(errors="replace")
                    for value in column.to_pylist()
                ],
                pa.string(),
            )
        if not self.strip:
            return text
        text = pc.utf8_trim_whitespace(text)
        missing = pc.is_in(text, value_set=pa.array(NULL_TEXTS))
        return pc.if_else(missing, pa.scalar(None, pa.string()), text)


def _open_text(path: str) -> io.TextIOWrapper:
    raw = gzip.open(path) if path.endswith(".gz") else Path(path).open("rb")  # noqa: SIM115
    return io.TextIOWrapper(
        cast(BinaryIO, raw), encoding="utf-8-sig", errors="replace", newline=""
    )
