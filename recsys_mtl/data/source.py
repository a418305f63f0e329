"""Raw files and simulated rows -> fragments that tasks read in parallel."""

import difflib
import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

import pyarrow as pa
import pyarrow.parquet as pq

from recsys_mtl.config.source import (
    ArrowSource,
    CsvSource,
    ParquetSource,
    SimulatorSource,
)
from recsys_mtl.data.csv_fragment import CsvFragment, csv_columns
from recsys_mtl.data.fragment import (
    AbstractFragment,
    ArrowFragment,
    BadLines,
    ParquetFragment,
    SimulatorFragment,
    open_arrow,
    plain_schema,
)
from recsys_mtl.data.simulator import Simulator
from recsys_mtl.errors import DataError

__all__ = ["BadLines", "Source", "open_source", "source_files", "source_schema"]

Source = ParquetSource | ArrowSource | CsvSource | SimulatorSource

_FRAGMENT_ROWS = 262_144
_SUFFIXES = {
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".feather", ".ipc", ".arrows"),
    "csv": (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz"),
}


def open_source(
    spec: Source, columns: Sequence[str] | None = None
) -> list[AbstractFragment]:
    r"""Cut a source into fragments, in the order of its rows.

    Checks every file, so that a fault shows before any work.

    Args:
        spec: What to read.
        columns: Columns to read; all of the first file if left out.

    Raises:
        DataError: A file is missing, empty, of another kind, or lacks a column.

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "log.csv")
        >>> _ = path.write_text("user,item\nu1,i1\nu2,NA\n")
        >>> spec = CsvSource(kind="csv", path=str(path))
        >>> [t.to_pylist() for f in open_source(spec, ["item"]) for t in f.read()]
        [[{'item': 'i1'}, {'item': None}]]
        >>> folder.cleanup()
    """
    if isinstance(spec, SimulatorSource):
        have = tuple(source_schema(spec).names)
        wanted = _checked(columns, have, "the simulator")
        return [
            SimulatorFragment(spec, chunk, wanted)
            for chunk in range(Simulator(spec).num_chunks)
        ]
    fragments: list[AbstractFragment] = []
    wanted_columns = columns
    for path in source_files(spec):
        found = _open_file(spec, str(path), wanted_columns)
        if found:
            wanted_columns = found[0].columns
        fragments += found
    if not fragments:
        raise DataError(f"{_described(spec)} has no rows; check that the export worked")
    return fragments


def source_schema(spec: Source) -> pa.Schema:
    """Names and types of the columns; CSV columns are all text.

    Raises:
        DataError: The first file is missing, empty or of another kind.
    """
    if isinstance(spec, SimulatorSource):
        # One row is enough to tell.
        small = spec.model_copy(update={"rows": 1, "num_users": 1})
        return Simulator(small).chunk(0).schema
    path = str(source_files(spec)[0])
    match spec:
        case ParquetSource():
            with _open_parquet(path) as file:
                return plain_schema(file.schema_arrow)
        case ArrowSource():
            with pa.memory_map(path) as file:
                return plain_schema(open_arrow(file, path).schema)
        case CsvSource():
            return pa.schema([(name, pa.string()) for name in csv_columns(spec, path)])
        case _:
            assert_never(spec)


def source_files(spec: ParquetSource | ArrowSource | CsvSource) -> list[Path]:
    """Files that the paths of a source stand for; those of a glob or folder sorted.

    Raises:
        DataError: There is none, or one is empty.
    """
    written = [spec.path] if isinstance(spec.path, str) else list(spec.path)
    files = [file for text in written for file in _files_at(text, spec.kind)]
    for file in files:
        if file.stat().st_size == 0:
            raise DataError(f"{file} is empty; remove it, or name another file")
    return list(dict.fromkeys(files))


def _files_at(written: str, kind: str) -> list[Path]:
    text = _with_environment(written)
    path = Path(text).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        suffixes = _SUFFIXES[kind]
        files = sorted(
            file
            for file in path.rglob("*")
            if file.is_file()
            and file.name.endswith(suffixes)
            and not file.name.startswith((".", "_"))
        )
        if not files:
            raise DataError(
                f"folder {path} holds no {kind} file (looked for "
                f"{', '.join(suffixes)}); name the files, or another folder"
            )
        return files
    if glob.has_magic(text):
        # Path.glob refuses absolute patterns.
        found = glob.glob(str(path), recursive=True)  # noqa: PTH207
        files = [file for file in map(Path, sorted(found)) if file.is_file()]
        if not files:
            raise DataError(f"no file matches {text!r}; correct the pattern")
        return files
    folder = path.parent
    near: list[str] = []
    if folder.is_dir():
        near = difflib.get_close_matches(
            path.name, [file.name for file in folder.iterdir()], n=1
        )
    hint = f"; there is {folder / near[0]}" if near else ""
    raise DataError(f"{path.absolute()} does not exist{hint}; correct the path")


def _with_environment(text: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise DataError(
                f"path {text!r} reads the environment variable {name}, which is not "
                "set; set it to the folder of the data"
            )
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", value, text)


def _open_file(
    spec: ParquetSource | ArrowSource | CsvSource,
    path: str,
    columns: Sequence[str] | None,
) -> Sequence[AbstractFragment]:
    match spec:
        case ParquetSource():
            return _parquet_fragments(path, columns)
        case ArrowSource():
            with pa.memory_map(path) as file:
                have = tuple(open_arrow(file, path).schema.names)
            return [ArrowFragment(path, _checked(columns, have, path))]
        case CsvSource():
            names = csv_columns(spec, path)
            return [
                CsvFragment(
                    path,
                    _checked(columns, names, path),
                    names,
                    spec.delimiter,
                    has_header=spec.column_names is None,
                    strip=spec.strip,
                )
            ]
        case _:
            assert_never(spec)


def _parquet_fragments(
    path: str, columns: Sequence[str] | None
) -> list[ParquetFragment]:
    with _open_parquet(path) as file:
        wanted = _checked(columns, tuple(file.schema_arrow.names), path)
        rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    fragments: list[ParquetFragment] = []
    groups: list[int] = []
    for group in range(len(rows)):
        groups.append(group)
        count = sum(rows[g] for g in groups)
        if count >= _FRAGMENT_ROWS or (group == len(rows) - 1 and count > 0):
            fragments.append(ParquetFragment(path, wanted, tuple(groups), count))
            groups = []
    return fragments


def _open_parquet(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{path} is not a Parquet file ({error}); name its true `kind` in the "
            "recipe, or write it anew"
        ) from error


def _checked(
    columns: Sequence[str] | None, have: tuple[str, ...], where: str
) -> tuple[str, ...]:
    if columns is None:
        return have
    for name in columns:
        if name not in have:
            near = difflib.get_close_matches(name, have, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise DataError(
                f"{where} has no column {name!r}; {hint}It has {', '.join(have)}"
            )
    return tuple(columns)


def _described(spec: ParquetSource | ArrowSource | CsvSource) -> str:
    return spec.path if isinstance(spec.path, str) else ", ".join(spec.path)
