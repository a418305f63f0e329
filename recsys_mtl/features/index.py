"""Finds values among many by binary search on sorted numbers."""

from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.features.column import absent, filled, flat, present
from recsys_mtl.features.hashing import stable_hash

__all__ = ["ValueIndex", "search_keys"]

_SMALL_TABLE = 65_536


def search_keys(values: pa.Array) -> np.ndarray:
    """Numbers to sort values by: whole numbers themselves, or the hash of text."""
    if pa.types.is_int64(values.type):
        keys: np.ndarray = values.to_numpy(zero_copy_only=False)
        return keys
    return stable_hash(values)


@final
@dataclass(frozen=True)
class ValueIndex:
    """Positions of distinct values that are sorted by ``search_keys``.

    Needs no memory of its own beyond ``keys`` and ``values``, which may be mapped from
    a file. Text is compared in full after its hash has matched, so that a collision
    never confuses two values.

    Attributes:
        values: Distinct whole numbers or text, without nulls.
        keys: ``search_keys(values)``, ascending.
        dense: For whole numbers that lie close together: position by value minus the
            least value; -1 where there is none.
    """

    values: pa.Array
    keys: np.ndarray
    dense: np.ndarray | None = None

    @classmethod
    def of(cls, values: pa.Array) -> "tuple[ValueIndex, np.ndarray]":
        """Sort ``values``; also returns the order that sorts them."""
        keys = search_keys(values)
        order = np.argsort(keys, kind="stable")
        index = cls(values.take(pa.array(order)), keys[order])
        return index.with_dense(), order

    def with_dense(self) -> "ValueIndex":
        """Spend memory like that of the values on a direct table, where that helps."""
        if len(self.keys) == 0 or self.keys.dtype != np.int64:
            return self
        span = int(self.keys[-1]) - int(self.keys[0]) + 1
        if span > max(_SMALL_TABLE, 4 * len(self.keys)):
            return self
        dense = np.full(span, -1, np.int64)
        dense[self.keys - self.keys[0]] = np.arange(len(self.keys))
        return ValueIndex(self.values, self.keys, dense)

    def find(self, wanted: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Position of each value; -1 where it is unknown or null.

        Shape:
            - return: ``(values,)`` of ``int64``
        """
        if isinstance(wanted, pa.DictionaryArray):
            # Logs and candidates repeat their values: search each distinct one once.
            return _spread(self._find(wanted.dictionary), wanted.indices)
        column = flat(wanted)
        if self._is_small(column) or len(column) <= _FEW or not _is_text(column):
            return self._find(column)
        coded = column.dictionary_encode()
        return _spread(self._find(coded.dictionary), coded.indices)

    def _find(self, column: pa.Array) -> np.ndarray:
        if len(self.keys) == 0 or len(column) == 0:
            return np.full(len(column), -1, np.int64)
        assert column.type == self.values.type, (column.type, self.values.type)
        if not _is_text(column):
            return self._find_whole(column)
        if self._is_small(column):
            found = pc.index_in(column, value_set=self.values)
            return filled(found, -1).astype(np.int64)
        return self._find_text(column)

    def _is_small(self, column: pa.Array) -> bool:
        """Whether Arrow, which hashes all known values anew each time, is faster."""
        return len(self.keys) <= _SMALL_SET + 4 * len(column)

    def _find_whole(self, column: pa.Array) -> np.ndarray:
        numbers = filled(column, 0)
        if self.dense is not None:
            least, most = int(self.keys[0]), int(self.keys[-1])
            inside = (numbers >= least) & (numbers <= most)
            # Clipped before the difference, which could overflow.
            places = np.clip(numbers, least, most) - least
            found = np.where(inside, self.dense[places], -1)
        else:
            places = np.searchsorted(self.keys, numbers)
            places[places == len(self.keys)] = 0
            found = np.where(self.keys[places] == numbers, places, -1)
        if column.null_count:
            found[absent(column)] = -1
        return found.astype(np.int64, copy=False)

    def _find_text(self, column: pa.Array) -> np.ndarray:
        hashes = stable_hash(column)
        places = np.searchsorted(self.keys, hashes)
        found = np.full(len(column), -1, np.int64)
        pending = np.flatnonzero(present(column))
        # More than one round only where two values share all 64 bits.
        while len(pending):
            here = places[pending]
            inside = here < len(self.keys)
            pending, here = pending[inside], here[inside]
            alike = self.keys[here] == hashes[pending]
            pending, here = pending[alike], here[alike]
            if len(pending) == 0:
                break
            same = self._same(here, column, pending)
            found[pending[same]] = here[same]
            pending = pending[~same]
            places[pending] += 1
        return found

    def _same(
        self, places: np.ndarray, wanted: pa.Array, rows: np.ndarray
    ) -> np.ndarray:
        """Whether the values at ``places`` are the wanted ones at ``rows``."""
        if len(rows) <= _VERY_FEW:
            pairs = zip(places.tolist(), rows.tolist(), strict=True)
            return np.array([self.values[a].equals(wanted[b]) for a, b in pairs], bool)
        same: np.ndarray = pc.equal(
            self.values.take(pa.array(places)), wanted.take(pa.array(rows))
        ).to_numpy(zero_copy_only=False)
        return same


_FEW = 64
_VERY_FEW = 8
_SMALL_SET = 512


def _is_text(column: pa.Array) -> bool:
    return not pa.types.is_int64(column.type)


def _spread(found: np.ndarray, codes: pa.Array) -> np.ndarray:
    """From places of a dictionary's values to those of its cells."""
    # One entry more than there are values: a dictionary may have none, and null cells.
    places: np.ndarray = np.append(found, -1)[filled(codes, 0)]
    if codes.null_count:
        places[absent(codes)] = -1
    return places
