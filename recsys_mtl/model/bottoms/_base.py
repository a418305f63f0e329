"""What every bottom promises."""

import abc

from jaxtyping import Float
from torch import Tensor, nn

from recsys_mtl.model.embeddings import EventSequence

__all__ = ["AbstractBottom"]


class AbstractBottom(nn.Module, abc.ABC):
    """Turns fields and numbers into what the gating reads.

    Its output has a *sharing* axis ``S``: 1 where the tasks share one representation,
    ``T`` where every task has its own.

    Attributes:
        out_dim: Width of the output.
    """

    out_dim: int

    @abc.abstractmethod
    def forward(
        self,
        fields_BFD: Float[Tensor, "batch fields dim"],
        dense_BM: Float[Tensor, "batch dense"],
        sequences: tuple[EventSequence, ...] = (),
    ) -> Float[Tensor, "batch sharing out"]:
        """Represent each row.

        Args:
            fields_BFD: As in ``Embedded``.
            dense_BM: As in ``Embedded``.
            sequences: Histories that this bottom pools itself.
        """
