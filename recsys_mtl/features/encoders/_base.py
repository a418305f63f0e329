"""What every encoder of single values does."""

from abc import ABC, abstractmethod

import numpy as np
import pyarrow as pa

__all__ = ["AbstractIds"]


class AbstractIds(ABC):
    """Turns values into ids: 0 missing, 1 unseen, from 2 on known.

    The same object encodes the candidate, the elements of a list and the events of a
    history.
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """Rows of the embedding table; every id is below it."""

    @abstractmethod
    def ids(self, values: pa.Array) -> np.ndarray:
        """Encode canonical values.

        Shape:
            - return: ``(values,)`` of ``int32``
        """
