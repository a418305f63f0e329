"""Tensors of an inference request -> a table of raw columns."""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.errors import RequestError
from recsys_mtl.rank.card import InputColumn
from recsys_mtl.rank.column import unknown_name, whole_column
from serving.settings import LimitSettings
from serving.tensor_message import Datatype, InferInput

__all__ = ["PRESENT", "read_tensors"]

PRESENT: Final = ":present"
"""What is added to a column's name for the tensor that says where it has values."""

_PREFIX: Final = struct.Struct("<I")
_DTYPES: Final[Mapping[str, str]] = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


def read_tensors(
    inputs: Sequence[InferInput],
    binary: memoryview,
    signature: Sequence[InputColumn],
    limits: LimitSettings,
) -> pa.Table:
    """Lay tensors out as the columns of a table.

    Args:
        inputs: As the JSON has them.
        binary: What stands behind the JSON.
        signature: Raw columns of the model: its lists take tensors of two axes.
        limits: Bounds of rows and columns.

    Raises:
        RequestError: A tensor's shape, datatype and data do not fit one another, rows
            differ, or bytes are left over.
    """
    if not inputs:
        raise RequestError("inputs", "must be one tensor or more, got none")
    if len(inputs) > limits.max_columns:
        raise RequestError("inputs", f"must be at most {limits.max_columns:,} tensors")
    kinds = {column.name: column.type for column in signature}
    tensors: dict[str, _Tensor] = {}
    for tensor in _unpacked(inputs, binary, limits.max_items):
        if tensor.name in tensors:
            raise RequestError(tensor.field, "must be one tensor, got two so named")
        if tensor.name.removesuffix(PRESENT) not in kinds:
            raise unknown_name(tensor.field, tensor.name, kinds)
        tensors[tensor.name] = tensor
    rows = next(iter(tensors.values())).shape[0]
    columns: dict[str, pa.Array] = {}
    for name, tensor in tensors.items():
        if tensor.shape[0] != rows:
            raise RequestError(
                tensor.field,
                f"must have {rows} rows like the first tensor, got {tensor.shape[0]}",
            )
        if name in kinds:
            listed = kinds[name].endswith("_list") and len(tensor.shape) == 2
            present = _present(tensors.get(name + PRESENT), tensor)
            columns[name] = _column(tensor, present, listed=listed)
        elif name.removesuffix(PRESENT) not in tensors:
            raise RequestError(tensor.field, "has no tensor of values beside it")
    return pa.table(columns)


@final
@dataclass(frozen=True)
class _Tensor:
    name: str
    field: str
    shape: tuple[int, ...]
    values: pa.Array  # flat; null where JSON has none


def _unpacked(
    inputs: Sequence[InferInput], binary: memoryview, max_rows: int
) -> list[_Tensor]:
    tensors, at = [], 0
    for tensor in inputs:
        field = f"inputs.{tensor.name}"
        if not tensor.shape:
            raise RequestError(field, "must have the shape [rows] or [rows, n], got []")
        if tensor.shape[0] > max_rows:
            # Lists of no entries take no bytes, however many there are.
            raise RequestError(
                field,
                f"must have at most {max_rows:,} rows, got {tensor.shape[0]:,}; send "
                "several requests",
            )
        count = math.prod(tensor.shape)
        size = tensor.parameters.binary_data_size
        if (size is None) == (tensor.data is None):
            raise RequestError(
                field, "give its values in `data`, or a `binary_data_size`"
            )
        if size is None:
            values = _from_json(tensor, count, field)
        else:
            if at + size > len(binary):
                raise RequestError(
                    field,
                    f"must be followed by {size:,} bytes, got {len(binary) - at:,}",
                )
            values = _from_bytes(tensor.datatype, binary[at : at + size], count, field)
            at += size
        tensors.append(_Tensor(tensor.name, field, tuple(tensor.shape), values))
    if at != len(binary):
        raise RequestError(
            "inputs",
            f"must account for every byte behind the JSON, {len(binary) - at:,} are "
            "left over",
        )
    return tensors


def _from_bytes(
    datatype: Datatype, binary: memoryview, count: int, field: str
) -> pa.Array:
    if datatype == "BYTES":
        return _texts(binary, count, field)
    dtype = np.dtype(_DTYPES[datatype])
    if len(binary) != count * dtype.itemsize:
        raise RequestError(
            field,
            f"must have {count * dtype.itemsize:,} bytes for its shape and datatype, "
            f"got {len(binary):,}",
        )
    return pa.array(np.frombuffer(binary, dtype))


def _texts(binary: memoryview, count: int, field: str) -> pa.Array:
    """Each text has its length before it, as four bytes."""
    bytes_ = np.frombuffer(binary, np.uint8)
    start_B = None
    if count * _PREFIX.size <= len(binary):  # a shape may claim billions
        start_B = _guessed_starts(bytes_, count)
        if start_B is None:
            start_B = _starts(binary, count)
    if start_B is None:
        raise RequestError(
            field, f"must be {count:,} texts, each behind its length in four bytes"
        )
    letters = np.ones(len(binary), bool)
    for k in range(_PREFIX.size):
        letters[start_B + k] = False
    length_B = np.diff(start_B, append=len(binary)) - _PREFIX.size
    offsets = np.concatenate([[0], np.cumsum(length_B)]).astype(np.int32)
    packed = bytes_[letters]
    raw = pa.Array.from_buffers(
        pa.binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(packed)]
    )
    try:
        return raw.cast(pa.string())  # which checks that they are UTF-8
    except pa.ArrowInvalid:
        for i, text in enumerate(raw.to_pylist()):
            try:
                text.decode()
            except UnicodeDecodeError as fault:
                raise RequestError(f"{field}[{i}]", "must be UTF-8") from fault
        raise


def _starts(binary: memoryview, count: int) -> npt.NDArray[np.int64] | None:
    """Where each text's length stands, read one after the other; null if not so."""
    starts, at, end = [], 0, len(binary)
    length_at = _PREFIX.unpack_from
    for _ in range(count):
        if at + _PREFIX.size > end:
            return None
        starts.append(at)
        at += _PREFIX.size + length_at(binary, at)[0]
    return np.array(starts, np.int64) if at == end else None


def _guessed_starts(
    bytes_: npt.NDArray[np.uint8], count: int
) -> npt.NDArray[np.int64] | None:
    """Find the lengths of short texts by the zeros in them, all at once.

    A length below 256 is a byte and three zeros, that of an empty text is four zeros,
    and letters are none. It is a guess where texts have zeros of their own: what does
    not lead from each length to the next is given up.
    """
    zero = bytes_ == 0
    if count == 0 or len(bytes_) < _PREFIX.size:
        return None
    start_B = np.flatnonzero(zero[1:-2] & zero[2:-1] & zero[3:])
    if len(start_B) != count:  # empty texts look like two
        start_B = _starts_of_runs(np.flatnonzero(zero))
    if len(start_B) != count or start_B[0] != 0:
        return None
    words = np.ndarray((len(bytes_) - 3,), "<u4", bytes_.data, strides=(1,))
    if start_B[-1] >= len(words):
        return None
    after_B = start_B + _PREFIX.size + words[start_B]
    led = np.array_equal(after_B[:-1], start_B[1:]) and after_B[-1] == len(bytes_)
    return start_B if led else None


def _starts_of_runs(zero: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Take runs of three zeros for the end of a length, longer ones for empty texts."""
    cut = np.flatnonzero(np.diff(zero) != 1)
    first = np.append(zero[:1], zero[cut + 1])
    run = np.append(zero[cut], zero[-1:]) - first + 1
    texts = np.maximum(run // _PREFIX.size, 1)
    nth = np.arange(texts.sum()) - np.repeat(np.cumsum(texts) - texts, texts)
    begin = first - (run == _PREFIX.size - 1)
    starts: npt.NDArray[np.int64] = np.repeat(begin, texts) + _PREFIX.size * nth
    return starts


def _from_json(tensor: InferInput, count: int, field: str) -> pa.Array:
    cells: list[Any] = tensor.data or []
    if len(tensor.shape) == 2 and any(isinstance(cell, list) for cell in cells):
        rows, width = tensor.shape
        if len(cells) != rows or not all(
            isinstance(row, list) and len(row) == width for row in cells
        ):
            raise RequestError(
                f"{field}.data", f"must be {rows} lists of {width}, as its shape says"
            )
        cells = [cell for row in cells for cell in row]
    if len(cells) != count:
        raise RequestError(
            f"{field}.data",
            f"must have {count:,} values, as its shape says, got {len(cells):,}",
        )

    def path(i: int) -> str:
        return f"{field}.data[{i}]"

    if tensor.datatype == "BYTES":
        return whole_column(cells, "string", path)
    if tensor.datatype == "BOOL":
        for i, cell in enumerate(cells):
            if not (cell is None or isinstance(cell, bool)):
                raise RequestError(path(i), "must be true or false")
        return pa.array(cells, pa.bool_())
    dtype = np.dtype(_DTYPES[tensor.datatype])
    if dtype.kind == "f":
        return whole_column(cells, "float", path)
    whole = whole_column(cells, "int", path)
    bounds = np.iinfo(dtype)
    numbers = whole.fill_null(0).to_numpy(zero_copy_only=False)
    outside = (numbers < bounds.min) | (numbers > min(bounds.max, 2**63 - 1))
    for i in np.flatnonzero(outside)[:1]:
        raise RequestError(
            path(int(i)), f"must be of {tensor.datatype}, got {numbers[i]}"
        )
    return whole


def _present(mask: _Tensor | None, tensor: _Tensor) -> npt.NDArray[np.bool_]:
    """Which values there are, flat."""
    told: npt.NDArray[np.bool_] = tensor.values.is_valid().to_numpy(
        zero_copy_only=False
    )
    if mask is None:
        return told
    if mask.shape != tensor.shape or not pa.types.is_boolean(mask.values.type):
        raise RequestError(
            mask.field, f"must be BOOL of the shape {list(tensor.shape)} of its column"
        )
    flags: npt.NDArray[np.bool_] = mask.values.fill_null(False).to_numpy(
        zero_copy_only=False
    )
    return told & flags


def _column(
    tensor: _Tensor, present: npt.NDArray[np.bool_], *, listed: bool
) -> pa.Array:
    if listed:
        rows, width = tensor.shape
        length_B = present.reshape(rows, width).sum(axis=1)
        offsets = np.concatenate([[0], np.cumsum(length_B)]).astype(np.int32)
        # What is absent in a list is padding: lists have no gaps.
        values = tensor.values.filter(pa.array(present))
        return pa.ListArray.from_arrays(pa.array(offsets), values)
    if len(tensor.shape) == 2 and tensor.shape[1] != 1:
        raise RequestError(
            tensor.field,
            f"must have the shape [rows] or [rows, 1], got {list(tensor.shape)}",
        )
    if present.all():
        return tensor.values
    return pc.if_else(pa.array(present), tensor.values, None)
