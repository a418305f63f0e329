"""A matrix of candidates, some of whose columns are the same for a whole request."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Rows", "SplitColumns", "SplitRows", "num_rows", "tasks_first", "whole"]


@final
class SplitColumns:
    """Says which columns of a matrix are shared, and divides weights the same way.

    Weights keep the layout in which they were trained. Their two parts are copied once,
    at first use, and anew only if the weight has changed since.

    Args:
        shared: Places of the shared columns in the whole matrix.
        own: Places of all other columns.

    Example:
        >>> columns = SplitColumns([0, 2], [1])
        >>> shared_HU, own_HI = columns.divided(torch.tensor([[1.0, 2.0, 3.0]]))
        >>> shared_HU, own_HI
        (tensor([[1., 3.]]), tensor([[2.]]))
    """

    def __init__(self, shared: Sequence[int], own: Sequence[int]) -> None:
        self.shared = torch.tensor(shared, dtype=torch.int64)
        self.own = torch.tensor(own, dtype=torch.int64)
        # Where each column of the whole lies among shared columns, then own ones.
        self.order = torch.argsort(torch.cat([self.shared, self.own]))
        assert self.order.sort().values.equal(torch.arange(len(self.order)))
        self._known: dict[int, _Divided] = {}

    def divided(
        self, weight: Float[Tensor, "*out whole"]
    ) -> tuple[Float[Tensor, "rows shared"], Float[Tensor, "rows own"]]:
        """Give the columns of ``weight`` for the shared and for the own inputs.

        Args:
            weight: A parameter; all axes but the last are flattened.
        """
        if torch.compiler.is_exporting():
            return self._divide(weight)  # whoever runs the program folds constants
        version = 0 if weight.is_inference() else weight._version
        known = self._known.get(id(weight))
        if known is None or known.weight() is not weight or known.version != version:
            known = _Divided(weakref.ref(weight), version, *self._divide(weight))
            self._known[id(weight)] = known
        return known.shared_HU, known.own_HI

    def _divide(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        weight_HD = weight.detach().flatten(0, -2)
        return weight_HD.index_select(1, self.shared), weight_HD.index_select(
            1, self.own
        )


@dataclass(frozen=True)
class _Divided:
    weight: "weakref.ref[Tensor]"
    version: int
    shared_HU: Tensor
    own_HI: Tensor


@final
@dataclass(frozen=True)
class SplitRows:
    """N rows of which some columns are stored once for R requests.

    It stands for the matrix ``joined()`` gives, one input that all tasks share. A layer
    that multiplies it takes ``linear``; a layer that needs it whole calls ``whole``.
    For scoring alone: no gradient passes through.

    Attributes:
        columns: Where the columns of both parts belong.
        shared_RU: Columns that are there once a request.
        own_NI: Columns of each candidate.
        request_N: Request of each candidate.
    """

    columns: SplitColumns
    shared_RU: Float[Tensor, "requests shared"]
    own_NI: Float[Tensor, "rows own"]
    request_N: Int[Tensor, " rows"]

    def linear(
        self,
        weight: Float[Tensor, "*out whole"],
        bias: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "rows out"]:
        """Multiply as ``F.linear(self.joined(), weight, bias)``, the user part once.

        Args:
            weight: A parameter; all axes but the last are flattened.
            bias: One number an output.
        """
        shared_HU, own_HI = self.columns.divided(weight)
        bias_H = None if bias is None else bias.flatten()
        if self.shared_RU.shape[1] == 0:
            return F.linear(self.own_NI, own_HI, bias_H)
        said_RH = F.linear(self.shared_RU, shared_HU, bias_H)
        said_NH = said_RH.index_select(0, self.request_N)
        if self.own_NI.shape[1] == 0:
            return said_NH
        return torch.addmm(said_NH, self.own_NI, own_HI.t())

    def joined(self) -> Float[Tensor, "rows whole"]:
        """Give all columns of all rows."""
        shared_NU = self.shared_RU.index_select(0, self.request_N)
        return torch.cat([shared_NU, self.own_NI], dim=1).index_select(
            1, self.columns.order
        )


Rows = Float[Tensor, "batch _ dim"] | SplitRows
"""What a bottom gives: rows, or in scoring rows that share columns."""


def num_rows(x_BSD: Rows) -> int | torch.SymInt:
    """Count the rows."""
    # Not `len`, which would be a constant in an exported program.
    rows = x_BSD.request_N if isinstance(x_BSD, SplitRows) else x_BSD
    return rows.shape[0]


def whole(x_BSD: Rows) -> Float[Tensor, "batch sharing dim"]:
    """Give a tensor, for layers that cannot split."""
    return x_BSD.joined()[:, None] if isinstance(x_BSD, SplitRows) else x_BSD


def tasks_first(
    h_BTH: Float[Tensor, "batch tasks hidden"] | SplitRows,
) -> Float[Tensor, "tasks batch hidden"] | SplitRows:
    """Put the tasks first, unless all tasks share split rows."""
    return h_BTH if isinstance(h_BTH, SplitRows) else h_BTH.transpose(0, 1)
