"""Lists of values -> lists of ids."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from recsys_mtl.features.column import filled, present
from recsys_mtl.features.encoders._base import AbstractIds
from recsys_mtl.features.schema import UNSEEN

__all__ = ["EncodedLists", "encode_lists", "id_lists"]


class EncodedLists(NamedTuple):
    """Lists of ids, and what was replaced or dropped.

    Attributes:
        lists: ``list<int32>``, never null.
        missing: Cells that were null, and elements that were null and dropped.
        unseen: Elements whose value is unknown.
    """

    lists: pa.ListArray
    missing: int
    unseen: int


def encode_lists(
    cells: pa.Array, encoder: AbstractIds, max_length: int
) -> EncodedLists:
    """Encode lists; null elements are dropped, then the first ``max_length`` are kept.

    Shape:
        - cells: ``(rows,)`` of lists
        - return: ``(rows,)`` of lists

    Example:
        >>> from recsys_mtl.features.encoders.hashed import HashIds
        >>> encode_lists(pa.array([["a", None], [], None]), HashIds(9, 0), 5).missing
        2
    """
    lengths = cells.value_lengths()
    counts = filled(lengths, 0).astype(np.int64)
    missing = lengths.null_count
    values = cells.flatten()
    if values.null_count:
        missing += values.null_count
        valid = present(values)
        row = np.repeat(np.arange(len(counts)), counts)
        counts = np.bincount(row[valid], minlength=len(counts))
        values = values.drop_null()
    if len(counts) and counts.max() > max_length:
        ends = np.cumsum(counts)
        place = np.arange(len(values)) - np.repeat(ends - counts, counts)
        values = values.filter(pa.array(place < max_length))
        counts = np.minimum(counts, max_length)
    ids = encoder.ids(values)
    return EncodedLists(id_lists(counts, ids), missing, int((ids == UNSEEN).sum()))


def id_lists(counts: np.ndarray, ids: np.ndarray) -> pa.ListArray:
    """Cut ids into lists of ``counts`` each."""
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids, pa.int32()))
