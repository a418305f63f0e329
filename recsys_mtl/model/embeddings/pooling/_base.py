"""What every pooling promises."""

import abc

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["AbstractPooling", "repeat_events", "sum_events"]

_FEW = 8
"""Candidates of a request, on average, below which one product over all pairs is
faster than one a request."""


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

    @property
    def reads_candidate(self) -> bool:
        """Whether ``query_BQD`` matters; otherwise candidates share what is pooled."""
        return False

    @property
    def averages(self) -> bool:
        """Whether a row gets the plain mean of its events, so affine maps may wait."""
        return False

    def pool_requests(
        self,
        events_EKD: Float[Tensor, "events fields dim"],
        length_R: Int[Tensor, " requests"],
        query_NQD: Float[Tensor, "rows matched dim"],
        request_N: Int[Tensor, " rows"],
    ) -> Float[Tensor, "rows fields dim"]:
        """Pool for candidates who share histories, as ``forward`` does row by row.

        Args:
            events_EKD: Events of each request once.
            length_R: Events of each request; they add up to E.
            query_NQD: Each candidate's vectors of the matched fields.
            request_N: Request of each candidate, ascending.
        """
        num_rows, num_requests = len(request_N), len(length_R)
        if num_rows < _FEW * num_requests:
            place_X, length_N = repeat_events(length_R, request_N)
            pooled_NKD: Tensor = self(events_EKD[place_X], length_N, query_NQD)
            return pooled_NKD
        counts = torch.bincount(request_N, minlength=num_requests).tolist()
        each = zip(
            self.prepare(events_EKD, length_R),
            torch.split(query_NQD, counts),
            strict=True,
        )
        pooled = [self.pool_one(shared, query) for shared, query in each]
        return torch.cat(pooled)

    def prepare(
        self,
        events_EKD: Float[Tensor, "events fields dim"],
        length_R: Int[Tensor, " requests"],
    ) -> list[tuple[Tensor, ...]]:
        """Do for each request's events what no candidate changes."""
        return [(events,) for events in torch.split(events_EKD, length_R.tolist())]

    def pool_one(
        self,
        shared: tuple[Tensor, ...],
        query_NQD: Float[Tensor, "rows matched dim"],
    ) -> Float[Tensor, "rows fields dim"]:
        """Pool the events of one request for each of its candidates.

        Args:
            shared: What ``prepare`` made of them.
            query_NQD: The candidates.
        """
        (events_LKD,) = shared
        num_rows = len(query_NQD)
        length_N = torch.full((num_rows,), len(events_LKD))
        pooled_NKD: Tensor = self(
            events_LKD.repeat(num_rows, 1, 1), length_N, query_NQD
        )
        return pooled_NKD

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


def repeat_events(
    length_R: Int[Tensor, " requests"], request_N: Int[Tensor, " rows"]
) -> tuple[Int[Tensor, " repeated"], Int[Tensor, " rows"]]:
    """Give the places of each row's events, and how many a row has.

    Args:
        length_R: Events of each request.
        request_N: Request of each row.

    Example:
        >>> repeat_events(torch.tensor([2, 1]), torch.tensor([0, 0, 1]))
        (tensor([0, 1, 0, 1, 2]), tensor([2, 2, 1]))
    """
    length_N = length_R.index_select(0, request_N)
    start_N = (length_R.cumsum(0) - length_R).index_select(0, request_N)
    shift_N = start_N - (length_N.cumsum(0) - length_N)
    shift_X = torch.repeat_interleave(shift_N, length_N)
    return shift_X + torch.arange(len(shift_X)), length_N
