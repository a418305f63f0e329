"""What every pooling promises."""

import abc

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["AbstractPooling", "sum_events"]


class AbstractPooling(nn.Module, abc.ABC):
    """Turns the events of each row into one vector a field.

    Events come flattened, all of the first row before those of the second, so there is
    no padding that could leak in. A row without events gets zeros.
    """

    @abc.abstractmethod
    def forward(
        self,
        events_NKD: Float[Tensor, "events fields dim"],
        length_B: Int[Tensor, " batch"],
        query_BQD: Float[Tensor, "batch matched dim"],
    ) -> Float[Tensor, "batch fields dim"]:
        """Pool.

        Args:
            events_NKD: Embedded events; the first ``matched`` fields are those that
                the candidate has too.
            length_B: Events of each row; they add up to N.
            query_BQD: The candidate's vectors of the matched fields.
        """

    def auxiliary(
        self,
        events_NKD: Float[Tensor, "events fields dim"],
        length_B: Int[Tensor, " batch"],  # noqa: ARG002
        id_N: Int[Tensor, " events"],  # noqa: ARG002
    ) -> Float[Tensor, ""]:
        """Give a loss of the pooling's own, 0 for none; asked for in training alone.

        The candidate is no argument, so nothing can be learned of it here.

        Args:
            events_NKD: As above.
            length_B: As above.
            id_N: Ids of the events' first field.
        """
        return events_NKD.new_zeros(())


def sum_events(
    events_NKD: Float[Tensor, "events fields dim"], length_B: Int[Tensor, " batch"]
) -> Float[Tensor, "batch fields dim"]:
    """Add up the events of each row; zeros where there are none.

    Example:
        >>> sum_events(torch.ones(3, 1, 1), torch.tensor([2, 0, 1])).flatten()
        tensor([2., 0., 1.])
    """
    flat_NH = events_NKD.flatten(1)
    # Measured against index_add, scatter_add and padding: the fastest there and back,
    # and the only one of them that is deterministic on GPUs.
    sum_BH = torch.segment_reduce(flat_NH, "sum", lengths=length_B, axis=0)
    return sum_BH.view(-1, *events_NKD.shape[1:])
