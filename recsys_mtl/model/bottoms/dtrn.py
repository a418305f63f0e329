"""Deep task-specific bottom representation network (DTRN)."""

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recsys_mtl.model.bottoms._base import AbstractBottom
from recsys_mtl.model.bottoms.task_encoder import Norm, TaskEncoder, lay_out
from recsys_mtl.model.dropout import dropout
from recsys_mtl.model.embeddings import EventSequence
from recsys_mtl.model.embeddings.pooling import AbstractPooling
from recsys_mtl.model.hypernetwork import Hypernetwork

__all__ = ["DTRN", "EventHistory", "TaskInterest"]

_OUTWARD_STD = 0.02
"""Start of what encoding adds to an event: near to nothing, as embeddings are small."""


class EventHistory(NamedTuple):
    """One history, as a bottom pools it.

    Attributes:
        num_fields: Fields of an event.
        length: Longest list of events.
        pooling: Turns encoded events into one vector a field.
    """

    num_fields: int
    length: int
    pooling: AbstractPooling


@final
class TaskInterest(nn.Module):
    r"""Reads every history once for each task (the paper's TIM).

    One encoder serves all tasks and histories. What differs is its norms, which a
    hypernetwork predicts from a code of the task and one of the history,
    :math:`[\sigma(u_t); \sigma(w_r)]`; so a task adds one code and nothing else.

    Args:
        dim: Width of an embedding.
        histories: In the order of the sequences.
        encoder: Shared by all tasks and histories.
        num_tasks: Number of tasks.
        code_dim: Numbers of a task's code, and of a history's.
        hidden: Widths of the hypernetwork's layers, in order.

    Shape:
        - return: for each history ``(batch, tasks, fields, dim)``

    Deviations:
        See ``DTRN``.
    """

    def __init__(
        self,
        dim: int,
        histories: Sequence[EventHistory],
        *,
        encoder: TaskEncoder,
        num_tasks: int,
        code_dim: int,
        hidden: tuple[int, ...],
    ) -> None:
        super().__init__()
        width = encoder.width
        self.encoder = encoder
        self.num_fields = sum(history.num_fields for history in histories)
        self.poolings = nn.ModuleList(history.pooling for history in histories)
        self.lengths = [history.length for history in histories]
        self.age = nn.ModuleList(nn.Embedding(n, width) for n in self.lengths)
        widths = [history.num_fields * dim for history in histories]
        self.inward = nn.ModuleList(nn.Linear(w, width) for w in widths)
        self.outward = nn.ModuleList(nn.Linear(width, w) for w in widths)
        for layer in self.outward.children():
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=_OUTWARD_STD)
        self.task_TD = nn.Parameter(torch.randn(num_tasks, code_dim))
        self.history_RD = nn.Parameter(torch.randn(len(histories), code_dim))
        self.hypernetwork = Hypernetwork(
            2 * code_dim,
            hidden,
            [torch.ones(width), torch.zeros(width)] * encoder.num_norms,
        )

    def forward(
        self, sequences: tuple[EventSequence, ...]
    ) -> list[Float[Tensor, "batch tasks _ dim"]]:
        norms = self._norms()
        return [
            self._pool(number, sequence, norms[number]).transpose(0, 1)
            for number, sequence in enumerate(sequences)
        ]

    def _pool(
        self, number: int, sequence: EventSequence, norms: list[Norm]
    ) -> Float[Tensor, "tasks batch fields dim"]:
        """Pool what events have become, for each task."""
        events_NKD, length_B, query_BQD = sequence
        pooling, outward = self.poolings[number], self.outward[number]
        x_TNG = self._encode(number, events_NKD, length_B, norms)
        num_tasks, num_rows = len(x_TNG), length_B.shape[0]
        # Tasks follow one another as if they were more rows.
        length_X = length_B.repeat(num_tasks)
        assert isinstance(outward, nn.Linear)
        weight_TGX, bias_T1X = norms[-1].into(outward.weight, outward.bias)
        # Added to the events, fields stay where the pooling looks for them.
        if pooling.averages:
            # An affine map may wait for the mean: rows are fewer than events.
            nothing_X0G = x_TNG.new_empty(length_X.shape[0], 0, x_TNG.shape[2])
            mean_XG = pooling(x_TNG.flatten(0, 1)[:, None], length_X, nothing_X0G)
            mean_TBG = mean_XG.view(num_tasks, num_rows, -1)
            change_TBX = torch.baddbmm(bias_T1X, mean_TBG, weight_TGX)
            change_TBX = change_TBX * (length_B > 0)[:, None]
            mean_BKD: Tensor = pooling(events_NKD, length_B, query_BQD)
            return mean_BKD + change_TBX.view(num_tasks, *mean_BKD.shape)
        change_TNX = torch.baddbmm(bias_T1X, x_TNG, weight_TGX)
        events_TNKD = events_NKD + change_TNX.view(num_tasks, *events_NKD.shape)
        query_XQD = query_BQD.repeat(num_tasks, 1, 1)
        pooled: Tensor = pooling(events_TNKD.flatten(0, 1), length_X, query_XQD)
        return pooled.view(num_tasks, num_rows, *pooled.shape[1:])

    def _norms(self) -> list[list[Norm]]:
        """Predict the norms: for each history, all those of the encoder."""
        num_tasks, num_histories = self.task_TD.shape[0], self.history_RD.shape[0]
        code_XD = torch.cat(
            [
                self.task_TD.repeat_interleave(num_histories, 0),
                self.history_RD.repeat(num_tasks, 1),
            ],
            dim=1,
        ).sigmoid()
        split = [
            tensor_XG.view(num_tasks, num_histories, -1).unbind(1)
            for tensor_XG in self.hypernetwork(code_XD)
        ]
        scales, shifts = split[::2], split[1::2]
        return [
            [Norm(a[r], b[r]) for a, b in zip(scales, shifts, strict=True)]
            for r in range(num_histories)
        ]

    def _encode(
        self, number: int, events_NKD: Tensor, length_B: Tensor, norms: list[Norm]
    ) -> Tensor:
        """Encode events, up to the affine part of the last norm."""
        slots = lay_out(events_NKD, length_B, self.lengths[number])
        x_NG = self.inward[number](events_NKD.flatten(1)) + self.age[number](
            slots.age_N
        )
        encoded_TNG: Tensor = self.encoder(x_NG[None], norms, slots)
        return encoded_TNG


@final
class DTRN(AbstractBottom):
    r"""Gives every task its own reading of histories and its own weight of each field.

    For task :math:`t`, with the fields and its interests (``TaskInterest``) side by
    side as :math:`Z_t` and their means over the width as :math:`s_t`, a squeeze and
    excitation refines every field (the paper's TRM):
    :math:`a_t = \sigma(V_t \phi(W_t s_t))`, and the output is
    :math:`2 a_t \odot Z_t`, flattened, then the numbers.

    Args:
        num_fields: Vectors of a row, without those of histories.
        dim: Width of a vector.
        num_dense: Numbers of a row; they pass unrefined.
        num_tasks: Number of tasks.
        interest: Reads the histories; none without histories.
        reduction: How many fields share one number of the squeeze.
        dropout: Probability to drop an entry of the output while training.

    Shape:
        - fields_BFD: ``(batch, num_fields, dim)``
        - dense_BM: ``(batch, num_dense)``
        - sequences: one a history
        - return: ``(batch, tasks, (num_fields + fields of events) * dim + num_dense)``

    Deviations:
        The paper's equations were not at hand. From its abstract are: a task-specific
        interest module over several histories by a parameter-efficient hypernetwork,
        and a SENet-like refinement of every feature a task. The rest is our reading:
        what the hypernetwork predicts (norms of a pre-norm transformer, in the
        parametrization of ``Hypernetwork``), projections of each history into the
        encoder and back, learned positions counted from the newest event, a pooling
        that the tasks share, the mean as squeeze, and the factor 2, at which
        untrained weights leave a field as it is.

    References:
        Liu et al., "Deep Task-specific Bottom Representation Network for Multi-Task
        Recommendation", CIKM 2023, arXiv:2308.05996.

    Example:
        >>> bottom = DTRN(num_fields=3, dim=4, num_dense=2, num_tasks=2)
        >>> bottom(torch.randn(5, 3, 4), torch.randn(5, 2)).shape
        torch.Size([5, 2, 14])
    """

    def __init__(
        self,
        *,
        num_fields: int,
        dim: int,
        num_dense: int,
        num_tasks: int,
        interest: TaskInterest | None = None,
        reduction: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        num_fields += interest.num_fields if interest is not None else 0
        self.out_dim = num_fields * dim + num_dense
        self.dropout = dropout
        self.interest = interest
        squeezed = -(-num_fields // reduction)
        self.squeeze_TGF = nn.Parameter(torch.empty(num_tasks, squeezed, num_fields))
        self.excite_TFG = nn.Parameter(torch.empty(num_tasks, num_fields, squeezed))
        for weight in (*self.squeeze_TGF, *self.excite_TFG):
            nn.init.xavier_uniform_(weight)

    def forward(
        self,
        fields_BFD: Float[Tensor, "batch fields dim"],
        dense_BM: Float[Tensor, "batch dense"],
        sequences: tuple[EventSequence, ...] = (),
    ) -> Float[Tensor, "batch sharing out"]:
        interests = [] if self.interest is None else self.interest(sequences)
        # An axis of one task stands for all of them where they read the same.
        parts = [fields_BFD[:, None], *interests]
        sizes = [part.shape[2] for part in parts]
        weights = self._weight(parts).split_with_sizes(sizes, dim=2)
        refined = [
            (part * weight_BTF[..., None]).flatten(2)
            for part, weight_BTF in zip(parts, weights, strict=True)
        ]
        dense_BTM = dense_BM[:, None].expand(-1, self.squeeze_TGF.shape[0], -1)
        return dropout(
            torch.cat([*refined, dense_BTM], dim=2), self.dropout, self.training
        )

    def _weight(
        self, parts: list[Float[Tensor, "batch _ _ dim"]]
    ) -> Float[Tensor, "batch tasks fields"]:
        num_tasks = self.squeeze_TGF.shape[0]
        means = [part.mean(3).expand(-1, num_tasks, -1) for part in parts]
        mean_BTF = torch.cat(means, dim=2)
        squeezed_BTG = torch.einsum("btf,tgf->btg", mean_BTF, self.squeeze_TGF)
        logit_BTF = torch.einsum("btg,tfg->btf", squeezed_BTG.relu(), self.excite_TFG)
        return 2 * logit_BTF.sigmoid()
