"""A stored row as bytes: MessagePack, so that reading it runs no code."""

from typing import Any, Final

import msgspec

from recsys_mtl.entities.store import Cells, StoredRow

__all__ = ["decode_row", "encode_row"]

_FORMAT: Final = 1


class _Record(msgspec.Struct, array_like=True, frozen=True):
    format: int
    written_us: int
    checked: str
    cells: dict[str, Any]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Record)


def encode_row(cells: Cells, written_us: int, checked: str) -> bytes:
    """Write a row.

    Example:
        >>> decode_row(encode_row({"age": 7}, 5, "")).cells
        {'age': 7}
    """
    return _ENCODER.encode(_Record(_FORMAT, written_us, checked, dict(cells)))


def decode_row(content: bytes | memoryview) -> StoredRow | None:
    """Read a row; ``None`` if it is damaged or of another format."""
    try:
        record = _DECODER.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if record.format != _FORMAT:
        return None
    return StoredRow(record.cells, record.written_us, record.checked)
