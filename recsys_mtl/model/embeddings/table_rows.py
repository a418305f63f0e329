"""Rows of all tables of one width, one after the other: one lookup for all columns."""

import abc
from collections.abc import Sequence
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

__all__ = ["AbstractTableRows", "ByteRows", "FloatRows"]


class AbstractTableRows(abc.ABC):
    """Gives rows as float32, however they are stored. For scoring alone.

    Attributes:
        dim: Width of a row.
    """

    dim: int

    @abc.abstractmethod
    def gather(self, place_X: Int[Tensor, " places"]) -> Float[Tensor, "places dim"]:
        """Read rows by their place among the rows of all tables."""

    def gather_each(
        self, places: Sequence[npt.NDArray[np.int64]]
    ) -> list[Float[Tensor, "..."]]:
        """Read several arrays of places in one go, which costs about as much as one.

        Shape:
            - return: for each array its shape with ``dim`` appended
        """
        place_X = np.concatenate([place.ravel() for place in places])
        # Cut by NumPy, which takes a fraction of PyTorch's time for each piece.
        vector_XD = self.gather(torch.from_numpy(place_X)).numpy()
        found, end = [], 0
        for place in places:
            start, end = end, end + place.size
            part = vector_XD[start:end].reshape(*place.shape, self.dim)
            found.append(torch.from_numpy(part))
        return found

    @property
    @abc.abstractmethod
    def num_bytes(self) -> int:
        """Memory that the rows take."""

    @abc.abstractmethod
    def table(self, start: int, stop: int) -> Float[Tensor, "rows dim"]:
        """Give consecutive rows, those of one table."""


@final
class FloatRows(AbstractTableRows):
    """Rows in float32, or in float16.

    Args:
        rows_VD: All rows.

    Example:
        >>> rows = FloatRows(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).half())
        >>> rows.gather(torch.tensor([1, 1]))
        tensor([[3., 4.],
                [3., 4.]])
    """

    def __init__(self, rows_VD: Float[Tensor, "rows dim"]) -> None:
        self.rows_VD = rows_VD
        self.dim = rows_VD.shape[1]

    def gather(self, place_X: Int[Tensor, " places"]) -> Float[Tensor, "places dim"]:
        return _taken(self.rows_VD, place_X).float()

    @property
    def num_bytes(self) -> int:
        return self.rows_VD.nbytes

    def table(self, start: int, stop: int) -> Float[Tensor, "rows dim"]:
        return self.rows_VD[start:stop].float()


@final
class ByteRows(AbstractTableRows):
    r"""Rows of bytes with a scale and an offset each: :math:`x = u (s_v q + b_v)`.

    :math:`b_v` is the least number of a row and :math:`255 s_v` its range, in float16
    and in a unit :math:`u` in which they are neither too large nor too small for that.
    It is FBGEMM's row-wise format with scales and offsets in a matrix of their own: a
    row of 16 numbers takes 20 bytes in place of 64.

    Args:
        byte_VD: The :math:`q_v`.
        affine_V2: The :math:`s_v` and :math:`b_v`, float16.
        unit: The :math:`u`.

    Example:
        >>> rows_VD = torch.tensor([[-1.0, 0.0, 4.1]])
        >>> rows = ByteRows.of(rows_VD)
        >>> rows.byte_VD
        tensor([[  0,  50, 255]], dtype=torch.uint8)
        >>> (rows.gather(torch.tensor([0])) - rows_VD).abs().max() <= 5.1 / 255
        tensor(True)
    """

    def __init__(
        self,
        byte_VD: UInt8[Tensor, "rows dim"],
        affine_V2: Float[Tensor, "rows 2"],
        unit: float,
    ) -> None:
        self.byte_VD = byte_VD
        self.affine_V2 = affine_V2
        self.unit = unit
        self.dim = byte_VD.shape[1]

    @classmethod
    def of(cls, rows_VD: Float[Tensor, "rows dim"]) -> "ByteRows":
        """Round rows."""
        if not len(rows_VD):
            return cls(rows_VD.to(torch.uint8), rows_VD.new_empty(0, 2).half(), 1.0)
        least_V1 = rows_VD.amin(1, keepdim=True)
        scale_V1 = (rows_VD.amax(1, keepdim=True) - least_V1) / 255
        largest = max(float(scale_V1.max()), float(least_V1.abs().max()) / _LARGEST)
        unit = largest or 1.0
        affine_V2 = (torch.cat([scale_V1, least_V1], dim=1) / unit).half()
        scale_V1, least_V1 = torch.split(affine_V2.float() * unit, 1, dim=1)
        # A row of equal numbers has scale 0, and is its offset.
        divisor_V1 = scale_V1.where(scale_V1 > 0, 1.0)
        byte_VD = ((rows_VD - least_V1) / divisor_V1).round().clamp(0, 255)
        return cls(byte_VD.to(torch.uint8), affine_V2, unit)

    def gather(self, place_X: Int[Tensor, " places"]) -> Float[Tensor, "places dim"]:
        affine_X2 = _taken(self.affine_V2, place_X)
        return self._floats(_taken(self.byte_VD, place_X), affine_X2)

    @property
    def num_bytes(self) -> int:
        return self.byte_VD.nbytes + self.affine_V2.nbytes

    def table(self, start: int, stop: int) -> Float[Tensor, "rows dim"]:
        return self._floats(self.byte_VD[start:stop], self.affine_V2[start:stop])

    def _floats(self, byte_XD: Tensor, affine_X2: Tensor) -> Tensor:
        affine = affine_X2.float() * self.unit
        return torch.addcmul(affine[:, 1:], byte_XD.float(), affine[:, :1])


_LARGEST = 60_000.0  # float16 ends at 65,504


def _taken(rows_VG: Tensor, place_X: Tensor) -> Tensor:
    # Of rows that no cache holds, numpy takes 13,000 in 0.5 ms, `index_select` in 0.8.
    return torch.from_numpy(np.take(rows_VG.numpy(), place_X.numpy(), axis=0))
