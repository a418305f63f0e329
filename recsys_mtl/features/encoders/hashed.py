"""Ids by a stable hash; nothing is fitted."""

from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa

from recsys_mtl.features.column import absent
from recsys_mtl.features.encoders._base import AbstractIds
from recsys_mtl.features.hashing import mix, seed_of, stable_hash
from recsys_mtl.features.schema import MISSING

__all__ = ["HashIds", "crossed"]


@final
@dataclass(frozen=True)
class HashIds(AbstractIds):
    """``2 + hash mod buckets``; no value is ever unseen.

    Attributes:
        buckets: How many ids values share.
        seed: Which hash function, so that two features differ in their collisions.

    Example:
        >>> HashIds(10, seed=0).ids(pa.array(["a", "b", None])).tolist()
        [9, 3, 0]
    """

    buckets: int
    seed: int

    @property
    def size(self) -> int:
        return 2 + self.buckets

    def ids(self, values: pa.Array) -> np.ndarray:
        ids = _bucket(stable_hash(values, self.seed), self.buckets)
        if values.null_count:
            ids[absent(values)] = MISSING
        return ids


def crossed(columns: list[pa.Array], buckets: int, feature: str) -> np.ndarray:
    """Ids of the combination of several values; missing where any of them is.

    Shape:
        - columns: each ``(rows,)``
        - return: ``(rows,)`` of ``int32``
    """
    combined = np.full(len(columns[0]), seed_of(feature), np.uint64)
    missing = np.zeros(len(combined), bool)
    for column in columns:
        # Chained, so that (a, b) and (b, a) differ.
        combined = mix(combined ^ stable_hash(column))
        missing |= absent(column)
    ids = _bucket(combined, buckets)
    ids[missing] = MISSING
    return ids


def _bucket(hashes: np.ndarray, buckets: int) -> np.ndarray:
    return (hashes % np.uint64(buckets)).astype(np.int32) + np.int32(2)
