"""Hashes that are the same on every machine, today and in ten years."""

from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_mtl.features.column import absent, filled, flat

__all__ = ["mix", "seed_of", "stable_hash"]

# Constants of splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
# generators", OOPSLA 2014, doi:10.1145/2660193.2660195. Changing any of them changes
# every saved encoder, split and entity table.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)


def stable_hash(array: pa.Array | pa.ChunkedArray, seed: int = 0) -> np.ndarray:
    """Hash every value to 64 bits; equal values of one type have equal hashes.

    Whole numbers of any width hash alike, so do all kinds of text; the number 12 and
    the text "12" do not.

    Args:
        array: Whole numbers, reals, text, bytes, booleans or times. Nulls are allowed
            and hash to one value, which callers should mask.
        seed: Another seed is another hash function.

    Shape:
        - return: ``(values,)`` of ``uint64``

    Raises:
        TypeError: Values are lists or structs.

    Example:
        >>> stable_hash(pa.array(["a", "b"])).tolist()
        [17106707319094771287, 5904214103699673091]
    """
    values = flat(array)
    kind = values.type
    start = mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64))[0]
    if pa.types.is_null(kind):
        words = np.zeros(len(values), np.uint64)
    elif (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    ):
        if not (pa.types.is_string(kind) or pa.types.is_large_binary(kind)):
            values = values.cast(pa.large_binary())
        return _hash_bytes(values, start)
    elif pa.types.is_floating(kind):
        reals = filled(values.cast(pa.float64()), 0.0)
        words = (reals + 0.0).view(np.uint64)  # -0.0 becomes 0.0
    elif pa.types.is_uint64(kind):
        words = filled(values, 0)
    elif (
        pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_temporal(kind)
    ):
        if pa.types.is_date32(kind) or pa.types.is_time32(kind):
            values = values.cast(pa.int32())
        whole = filled(values.cast(pa.int64()), 0)
        words = whole.view(np.uint64)
    else:
        raise TypeError(f"values of type {kind} cannot be hashed")
    return cast(np.ndarray, mix(words ^ start))


def mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble 64-bit words so that every bit depends on every bit (splitmix64)."""
    z = words + _GOLDEN
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


def seed_of(name: str) -> int:
    """Turn a name into a seed, so that features do not share their collisions."""
    return int(stable_hash(pa.array([name]))[0])


def _hash_bytes(values: pa.Array, start: np.uint64) -> npt.NDArray[np.uint64]:
    """Hash byte strings eight bytes at a time, all rows at once."""
    count = len(values)
    if count == 0:
        return np.empty(0, np.uint64)
    _, offset_buffer, data_buffer = values.buffers()
    width = np.int32 if pa.types.is_string(values.type) else np.int64
    ends = np.frombuffer(offset_buffer, width)[
        values.offset : values.offset + count + 1
    ].astype(np.int64)
    offsets, lengths = ends[:-1], np.diff(ends)
    if values.null_count:
        lengths[absent(values)] = 0
    hashes = mix(lengths.view(np.uint64) ^ start)
    if data_buffer is None or not lengths.any():
        return hashes
    first, last = int(offsets[0]), int(offsets[-1] + lengths[-1])
    data = np.zeros(last - first + 8, np.uint8)
    data[: last - first] = np.frombuffer(data_buffer, np.uint8)[first:last]
    # Every place of the data as the start of a little-endian word.
    words = np.ndarray((len(data) - 7,), "<u8", data.data, strides=(1,))
    places = offsets - first
    active = np.flatnonzero(lengths)
    done = 0
    while len(active):
        left = lengths[active] - done
        word = words[places[active] + done].astype(np.uint64)
        surplus = np.uint64(8) * (8 - np.minimum(left, 8)).astype(np.uint64)
        word = (word << surplus) >> surplus
        hashes[active] = mix(hashes[active] ^ word)
        active = active[left > 8]
        done += 8
    return hashes
