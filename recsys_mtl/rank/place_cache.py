"""Where users and items lie in their tables, remembered for ids that come again."""

from typing import Final, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_mtl.features.entity import EntityTable

__all__ = ["PlaceCache"]

_NEW: Final = -2
_LONGEST: Final = 256


@final
class PlaceCache:
    """Answers ``EntityTable.find``, from memory where it has been asked before.

    A search costs some hundred microseconds however few ids it has, more than all else
    that is done for a user; looking into a dictionary costs less than one. For text
    alone: whole numbers are found by arithmetic.

    Args:
        table: Which is never changed.
        size: Ids that are remembered; when it is full, all are forgotten at once. Long
            ones are not, for a caller may make them up by the gigabyte.
    """

    def __init__(self, table: EntityTable, size: int = 65_536) -> None:
        self._table = table
        self._size = size
        self._places: dict[str, int] = {}

    def find(self, keys: pa.Array) -> npt.NDArray[np.int64]:
        """Row of each key; -1 where it is unknown or null.

        Shape:
            - return: ``(keys,)`` of ``int64``
        """
        if not pa.types.is_string(keys.type):
            return self._table.find(keys)
        asked = keys.to_pylist()
        places = self._places
        found = [places.get(key, _NEW) for key in asked]
        found_N = np.array(found, np.int64)
        if _NEW in found:
            new = np.flatnonzero(found_N == _NEW)
            found_N[new] = self._table.find(keys.take(pa.array(new)))
            if len(places) + len(new) > self._size:
                places.clear()
            for i in new[: self._size]:
                if len(asked[i] or "") <= _LONGEST:
                    places[asked[i]] = int(found_N[i])
        return found_N
