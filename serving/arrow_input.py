"""An Arrow IPC stream from anybody -> a table that is what it claims to be.

A stream of a few bytes may claim lengths of petabytes, share one buffer among many
columns, or unpack to gigabytes. Messages are looked at before anything of them is
believed; compression, and types of which much fits a small buffer, are refused; the
rest is validated in full.
"""

import struct
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.errors import RequestError
from serving.fault import HttpFault
from serving.settings import LimitSettings

__all__ = ["read_stream"]

T = TypeVar("T")

_MAX_MESSAGES: Final = 1_000
_SCALARS = {
    kind.id
    for kind in (
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
        *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64(), pa.bool_()),
        *(pa.string(), pa.large_string(), pa.string_view()),
        *(pa.date32(), pa.date64(), pa.timestamp("s")),
    )
}
_LISTS = {
    pa.list_(pa.null()).id,
    pa.large_list(pa.null()).id,
    pa.list_(pa.null(), 1).id,
}
_TEXT_VIEW_BYTES = 16
_END: Final = b"\xff\xff\xff\xff\0\0\0\0"
# Numbers of fields in Arrow's Message.fbs, which never change.
_MESSAGE_HEADER, _BATCH_LENGTH, _BATCH_COMPRESSION, _DICTIONARY_BATCH = 2, 0, 3, 1


def read_stream(body: bytes, limits: LimitSettings) -> pa.Table:
    """Read a whole stream of scalars, dictionaries of scalars and lists of scalars.

    Raises:
        HttpFault: 400 for what is no such stream, or lies about its lengths.
        RequestError: It has too many rows, columns, events or letters, compressed
            buffers, two columns of one name, or a type that no raw column has.
    """
    buffer = pa.py_buffer(body)
    rows = _arrow(lambda: _look_at_messages(buffer))
    if rows > limits.max_items:
        raise RequestError(
            "columns",
            f"must have at most {limits.max_items:,} rows, got {rows:,}; send several "
            "requests",
        )
    stream = _arrow(lambda: pa.ipc.open_stream(buffer))
    names = _arrow(lambda: _checked_names(stream.schema))
    if len(names) > limits.max_columns:
        raise RequestError(
            "columns",
            f"must be at most {limits.max_columns:,} columns, got {len(names):,}",
        )
    for name, kind in zip(names, stream.schema.types, strict=True):
        _check_type(f"columns.{name}", kind)
    table = _arrow(lambda: _validated(stream))
    if table.num_rows != rows:
        raise _malformed("its batches have other lengths than they tell")
    cells = sum(_size(column) for column in table.columns)
    if cells > limits.max_cell_bytes:
        raise RequestError(
            "columns",
            f"must unpack to at most {limits.max_cell_bytes:,} bytes, got {cells:,}; "
            "send fewer rows, or shorter lists and texts",
        )
    return table


def _arrow(read: Callable[[], T]) -> T:
    try:
        return read()
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as fault:
        raise _malformed(str(fault).partition("\n")[0][:200]) from fault
    except (struct.error, IndexError) as fault:
        raise _malformed("a message ends before its fields") from fault


def _malformed(reason: str) -> HttpFault:
    return HttpFault(
        HTTPStatus.BAD_REQUEST,
        "malformed_arrow",
        f"the body is no Arrow IPC stream: {reason}",
    )


def _look_at_messages(buffer: pa.Buffer) -> int:
    """Count rows and refuse what unpacks; Arrow has verified a message's metadata."""
    source = pa.BufferReader(buffer)
    reader = pa.ipc.MessageReader.open_stream(source)
    rows = 0
    for number in range(_MAX_MESSAGES + 1):
        try:
            message = reader.read_next_message()
        except StopIteration:
            # Without the mark, rows may have been lost on the way; and a second stream
            # after it would be.
            if buffer[-len(_END) :].to_pybytes() != _END:
                raise _malformed("it lacks the mark of its end") from None
            if source.tell() != buffer.size:
                raise _malformed("it goes on behind the mark of its end") from None
            return rows
        if number == _MAX_MESSAGES:
            break
        if number == 0:
            continue  # the schema, which Arrow insists on
        metadata = message.metadata.to_pybytes()
        batch = _table_at(metadata, _root(metadata), _MESSAGE_HEADER)
        if message.type == "dictionary":
            batch = _table_at(metadata, batch, _DICTIONARY_BATCH)
        elif message.type != "record batch":
            raise _malformed(f"a message of type {message.type} has no place here")
        if _field(metadata, batch, _BATCH_COMPRESSION) is not None:
            raise RequestError(
                "columns", "must not be compressed; write the stream without a codec"
            )
        if message.type == "record batch":
            at = _field(metadata, batch, _BATCH_LENGTH)
            length = 0 if at is None else struct.unpack_from("<q", metadata, at)[0]
            if length < 0:
                raise _malformed("a batch has a negative length")
            rows += length
    raise _malformed(f"it has more than {_MAX_MESSAGES:,} messages; merge its batches")


def _root(flat: bytes) -> int:
    return int(struct.unpack_from("<I", flat, 0)[0])


def _field(flat: bytes, table: int, number: int) -> int | None:
    """Where a field of a flatbuffer's table lies; nowhere if it has its default."""
    vtable = table - struct.unpack_from("<i", flat, table)[0]
    slot = 4 + 2 * number
    if vtable < 0 or slot >= struct.unpack_from("<H", flat, vtable)[0]:
        return None
    offset = struct.unpack_from("<H", flat, vtable + slot)[0]
    return table + offset if offset else None


def _table_at(flat: bytes, table: int, number: int) -> int:
    at = _field(flat, table, number)
    if at is None:
        raise _malformed("a message lacks its header")
    return at + int(struct.unpack_from("<I", flat, at)[0])


def _checked_names(schema: pa.Schema) -> list[str]:
    names: list[str] = schema.names
    if not names:
        raise RequestError("columns", "must be one column or more, got none")
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise RequestError(f"columns.{twice}", "must be one column, got two so named")
    return names


def _check_type(field: str, kind: pa.DataType) -> None:
    inner = kind
    if inner.id in _LISTS or pa.types.is_dictionary(inner):
        inner = inner.value_type
    elif pa.types.is_null(inner):
        return
    if inner.id not in _SCALARS:
        raise RequestError(
            field,
            "must be a column of numbers, texts, times, or lists of these, got "
            f"{str(kind)[:80]}",
        )


def _validated(stream: pa.RecordBatchReader) -> pa.Table:
    batches = []
    for batch in stream:
        batch.validate(full=True)
        batches.append(batch)
    table = pa.Table.from_batches(batches, stream.schema)
    for i, kind in enumerate(table.schema.types):
        if pa.types.is_dictionary(kind) and pa.types.is_string_view(kind.value_type):
            # Arrow decodes no dictionary of views.
            chunks = [
                pa.DictionaryArray.from_arrays(
                    chunk.indices, chunk.dictionary.cast(pa.string())
                )
                for chunk in table.column(i).chunks
            ]
            plain = pa.chunked_array(
                chunks, pa.dictionary(kind.index_type, pa.string())
            )
            table = table.set_column(i, table.schema.names[i], plain)
    return table


def _size(column: pa.ChunkedArray) -> int:
    """Bytes of a column once every value has its own."""
    return sum(_chunk_size(chunk) for chunk in column.chunks)


def _chunk_size(chunk: pa.Array) -> int:
    if pa.types.is_dictionary(chunk.type):
        size_D = _text_sizes(chunk.dictionary)
        if size_D is None:
            return 8 * len(chunk)
        used = chunk.indices.drop_null() if chunk.indices.null_count else chunk.indices
        used_B = used.to_numpy(zero_copy_only=False)
        return int(size_D[used_B].sum(dtype=np.int64)) + 8 * len(chunk)
    if chunk.type.id in _LISTS:
        return 8 * len(chunk) + _chunk_size(chunk.flatten())
    if _is_plain_text(chunk.type):
        return 8 * len(chunk) + (pc.sum(pc.binary_length(chunk)).as_py() or 0)
    sizes = _text_sizes(chunk)
    return 8 * len(chunk) + (0 if sizes is None else int(sizes.sum()))


def _text_sizes(texts: pa.Array) -> np.ndarray | None:
    """Bytes of each text, without making any; ``None`` for other values."""
    if pa.types.is_string_view(texts.type):
        # A view begins with its length; many may point at one stretch of letters.
        views = np.frombuffer(texts.buffers()[1] or b"", "<i4")
        each = views.reshape(-1, _TEXT_VIEW_BYTES // 4)[:, 0]
        own = each[texts.offset : texts.offset + len(texts)].astype(np.int64)
        missing: np.ndarray = texts.is_null().to_numpy(zero_copy_only=False)
        return np.where(missing, 0, own)
    if _is_plain_text(texts.type):
        lengths = pc.binary_length(texts)
        if lengths.null_count:
            lengths = lengths.fill_null(0)
        sizes: np.ndarray = lengths.to_numpy(zero_copy_only=False)
        return sizes
    return None


def _is_plain_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
