"""One row per user or item, found by key without reading the file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np
import pyarrow as pa

from recsys_mtl.errors import ArtifactError, DataError
from recsys_mtl.features.cast import ARROW_TYPES, cast_column
from recsys_mtl.features.column import flat, present
from recsys_mtl.features.index import ValueIndex

__all__ = ["EntityTable"]

_FORMAT = 1
_HASH = "__hash__"
_META = b"recsys_mtl"


@final
@dataclass(frozen=True)
class EntityTable:
    """Rows of users or items, sorted for search.

    Build one from rows, or open a file: the file is mapped into memory, so opening
    costs the same for ten rows and for ten million, and processes share its pages.

    Attributes:
        key: Name of the key column.
        rows: All columns, sorted; the key column included.
        index: Finds keys in ``rows``.
        duplicates: Rows that a later row of the same key replaced.
        keyless: Rows that were dropped because they have no key.

    Example:
        >>> table = pa.table({"id": [7, 3, 7], "age": [1, 2, 3]})
        >>> users = EntityTable.build(table, "id")
        >>> rows, known_B = users.lookup(pa.array([7, 5]))
        >>> rows["age"].to_pylist(), known_B.tolist(), users.duplicates
        ([3, None], [True, False], 1)
    """

    key: str
    rows: pa.Table
    index: ValueIndex
    duplicates: int = 0
    keyless: int = 0

    @classmethod
    def build(cls, table: pa.Table, key: str) -> "EntityTable":
        """Sort rows by key. Of several rows with one key the last wins.

        Args:
            table: Rows; ``key`` holds whole numbers or text.
            key: Name of the key column.

        Raises:
            DataError: There is no such column.
        """
        if key not in table.column_names:
            raise DataError(
                f"key column {key!r} is missing; there are "
                f"{', '.join(table.column_names)}"
            )
        kind = key_type(table.schema.field(key).type)
        keys = cast_column(table.column(key), kind).array
        table = table.set_column(table.column_names.index(key), key, keys)
        valid = np.flatnonzero(present(keys))
        keyless = len(keys) - len(valid)
        coded = keys.take(pa.array(valid)).dictionary_encode()
        last = np.full(len(coded.dictionary), -1, np.int64)
        np.maximum.at(last, coded.indices.to_numpy(), valid)
        index, order = ValueIndex.of(coded.dictionary)
        rows = table.take(pa.array(last[order])).combine_chunks()
        return cls(key, rows, index, len(valid) - len(last), keyless)

    def save(self, path: Path) -> None:
        """Write an Arrow IPC file, uncompressed so that it can be mapped."""
        about = {
            "format": _FORMAT,
            "key": self.key,
            "duplicates": self.duplicates,
            "keyless": self.keyless,
        }
        hashes = pa.array(self.index.keys)
        table = self.rows.append_column(_HASH, hashes).combine_chunks()
        schema = table.schema.with_metadata({_META: json.dumps(about).encode()})
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as out:
            # In one piece: the search needs the keys side by side.
            out.write_table(table.cast(schema), max_chunksize=max(1, table.num_rows))

    @classmethod
    def load(cls, path: Path) -> "EntityTable":
        """Map a file that ``save`` wrote.

        Raises:
            ArtifactError: The file is missing, damaged, or of another format.
        """
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise ArtifactError(
                f"{path} is no readable entity table ({error}); rebuild the tables"
            ) from error
        about = json.loads((table.schema.metadata or {}).get(_META, b"{}"))
        if about.get("format") != _FORMAT:
            raise ArtifactError(
                f"{path} has format {about.get('format')!r}, this version reads "
                f"{_FORMAT}; rebuild the tables"
            )
        rows = table.drop_columns([_HASH]).replace_schema_metadata(None)
        hashes = flat(table.column(_HASH)).to_numpy(zero_copy_only=False)
        index = ValueIndex(flat(rows.column(about["key"])), hashes)
        return cls(about["key"], rows, index, about["duplicates"], about["keyless"])

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns but the key."""
        return tuple(name for name in self.rows.column_names if name != self.key)

    def find(self, keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Row of each key; -1 where it is unknown or null.

        Keys may be text where the table has whole numbers, and the other way round.

        Shape:
            - return: ``(keys,)`` of ``int64``
        """
        kind = self.rows.schema.field(self.key).type
        if keys.type == kind:  # empty text, which counts as none, is no key of a row
            return self.index.find(keys)
        return self.index.find(cast_column(keys, key_type(kind)).array)

    def take(self, row_B: np.ndarray, columns: tuple[str, ...]) -> pa.Table:
        """Rows by number, with nulls for -1."""
        places = pa.array(row_B, mask=row_B < 0)
        return self.rows.select(columns).take(places)

    def lookup(self, keys: pa.Array | pa.ChunkedArray) -> tuple[pa.Table, np.ndarray]:
        """Rows by key, with nulls where unknown, and which keys are known.

        Shape:
            - return: ``columns`` of ``(keys,)`` rows; ``(keys,)`` of ``bool``
        """
        row_B = self.find(keys)
        return self.take(row_B, self.columns), row_B >= 0


def key_type(kind: pa.DataType) -> Literal["int", "string"]:
    """Whole numbers stay; everything else is text."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return "int" if ARROW_TYPES["int"] == kind else "string"
