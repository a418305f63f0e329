"""FinalMLP: two MLPs over gated inputs, and the product of what they say."""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from recsys_mtl.model.split_rows import SplitRows, tasks_first, whole
from recsys_mtl.model.task_mlp import LogitRepeat, TaskLinear, TaskLogits, TaskMLP
from recsys_mtl.model.towers._base import AbstractTower

__all__ = ["FeatureGate", "FinalMLPTower", "Selection", "Stream"]


@dataclass(frozen=True)
class Selection:
    """Size of a stream's feature gate.

    Attributes:
        context_dim: Width of what the gate reads.
        hidden: Widths of its hidden layers, in order; at least one.
        learned: Whether no context is named, so that one learned vector stands there.
        init_std: Standard deviation of that vector's normal start.
    """

    context_dim: int
    hidden: tuple[int, ...]
    learned: bool
    init_std: float = 0.0


@dataclass(frozen=True)
class Stream:
    """Size of one of the two MLPs.

    Attributes:
        hidden: Widths of the layers, in order; at least one.
        dropout: Probability to drop a hidden unit while training.
        selection: Its feature gate, if it has one.
    """

    hidden: tuple[int, ...]
    dropout: float = 0.0
    selection: Selection | None = None


@final
class FinalMLPTower(AbstractTower):
    r"""Adds the logits of two MLPs and a multi-head bilinear form of what they say.

    With :math:`o_s = \mathrm{MLP}_s(x \odot 2 g_s)` for the streams
    :math:`s \in \{1, 2\}`, whose gates :math:`g_s` read contexts of their own,

    .. math:: w_1 \cdot o_1 + b_1 + w_2 \cdot o_2 + b_2
        + \sum_{j=1}^{k} o_1^{(j)\top} W^{(j)} o_2^{(j)}

    where :math:`o^{(j)}` is the j-th of k equal parts. After ``gating: direct`` this is
    the published model, and the gates weigh every entry of every field; after another
    gating they weigh the entries of a task's hidden vector.

    Args:
        dim: Width of the input.
        first: The first stream.
        second: The second stream.
        num_logits: Logits of each task.
        num_heads: Parts of the bilinear form; must divide both streams' last widths.
            0 leaves the form out, which is DualMLP if there are no gates either.
        batch_norm: Whether hidden layers of the streams are standardised.

    Shape:
        - h_BTH: ``(batch, tasks, dim)``
        - contexts: one ``(batch, columns, width)`` for each stream that reads one, in
          order
        - return: for each task ``(batch, its logits)``

    Raises:
        ValueError: The heads do not divide a width.

    Deviations:
        - Several tasks run side by side, each with networks of its own; the tables
          that contexts come from are common to them. The paper has one task.
        - The first bias starts at the head's initial logits, not at 0.
        - With a learned context that starts at 0, as published, its gate is dead but
          for the last bias: no gradient reaches the vector, nor the layers below, since
          the slope of ReLU at 0 is 0. A random start (``init_std``) revives them.
        - Sums of the bilinear form are taken in float32 under autocast too.

    References:
        K. Mao, J. Zhu, L. Su, G. Cai, Y. Li, Z. Dong. FinalMLP: an enhanced two-stream
        MLP model for CTR prediction. AAAI 2023. arXiv:2304.00902

    Example:
        >>> tower = FinalMLPTower(
        ...     4, Stream((6,)), Stream((8,)), num_logits=(1, 2), num_heads=2
        ... )
        >>> [logits_BC.shape for logits_BC in tower(torch.randn(5, 2, 4))]
        [torch.Size([5, 1]), torch.Size([5, 2])]
    """

    def __init__(
        self,
        dim: int,
        first: Stream,
        second: Stream,
        *,
        num_logits: tuple[int, ...],
        num_heads: int = 1,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.num_logits = num_logits
        streams = (first, second)
        num_tasks = len(num_logits)
        self.gates = nn.ModuleList(
            FeatureGate(dim, stream.selection, num_tasks=num_tasks)
            if stream.selection
            else nn.Identity()
            for stream in streams
        )
        self.mlps = nn.ModuleList(
            TaskMLP(
                dim,
                stream.hidden,
                num_tasks=num_tasks,
                dropout=stream.dropout,
                batch_norm=batch_norm,
                init=nn.init.xavier_normal_,
            )
            for stream in streams
        )
        self.logits = nn.ModuleList(
            TaskLogits(stream.hidden[-1], num_logits, init=nn.init.xavier_normal_)
            for stream in streams
        )
        self.fusion = (
            BilinearFusion(
                first.hidden[-1],
                second.hidden[-1],
                num_logits=num_logits,
                num_heads=num_heads,
            )
            if num_heads
            else None
        )

    def start_at(self, logits: Sequence[Sequence[float]]) -> None:
        first = self.logits[0]
        assert isinstance(first, TaskLogits)
        first.start_at(list(itertools.chain.from_iterable(logits)))

    def forward(
        self,
        h_BTH: Float[Tensor, "batch tasks hidden"] | SplitRows,
        contexts: tuple[Float[Tensor, "batch _ _"], ...] = (),
    ) -> tuple[Float[Tensor, "batch _"], ...]:
        unread = iter(contexts)
        said = [
            mlp(self._gated(gate, h_BTH, unread))
            for gate, mlp in zip(self.gates, self.mlps, strict=True)
        ]
        first_BX, second_BX = (
            layer(o_TBH) for layer, o_TBH in zip(self.logits, said, strict=True)
        )
        logits_BX = first_BX + second_BX
        if self.fusion is not None:
            logits_BX = logits_BX + self.fusion(*said)
        return torch.split(logits_BX, list(self.num_logits), dim=1)

    def _gated(
        self,
        gate: nn.Module,
        h_BTH: Float[Tensor, "batch tasks hidden"] | SplitRows,
        unread: Iterator[Tensor],
    ) -> Float[Tensor, "tasks batch hidden"] | SplitRows:
        if not isinstance(gate, FeatureGate):
            return tasks_first(h_BTH)
        h_TBH = whole(h_BTH).transpose(0, 1).expand(len(self.num_logits), -1, -1)
        context_BG = None if gate.vector_TG is not None else next(unread).flatten(1)
        gated_TBH: Tensor = gate(h_TBH, context_BG)
        return gated_TBH


@final
class FeatureGate(nn.Module):
    r"""Weighs every entry of the input by a number between 0 and 2.

    :math:`2 \sigma(W_2 \phi(W_1 c + b_1) + b_2)` for a context c.

    Args:
        dim: Width of what is weighed.
        selection: Size.
        num_tasks: Number of tasks, each with a gate of its own.

    Shape:
        - h_TBH: ``(tasks, batch, dim)``
        - context_BG: ``(batch, context_dim)``; ``None`` if it is learned
        - return: as h_TBH

    Example:
        >>> gate = FeatureGate(4, Selection(3, (5,), learned=True), num_tasks=1)
        >>> gate(torch.ones(1, 2, 4), None)  # starts as the identity
        tensor([[[1., 1., 1., 1.],
                 [1., 1., 1., 1.]]], grad_fn=<MulBackward0>)
    """

    def __init__(self, dim: int, selection: Selection, *, num_tasks: int) -> None:
        super().__init__()
        self.vector_TG: nn.Parameter | None = None
        if selection.learned:
            vector_TG = torch.zeros(num_tasks, selection.context_dim)
            if selection.init_std:
                nn.init.normal_(vector_TG, std=selection.init_std)
            self.vector_TG = nn.Parameter(vector_TG)
        draw = random.Random(0)
        factors = [draw.getrandbits(63) | 1 for _ in range(selection.context_dim)]
        self.factor_G: Tensor
        self.register_buffer("factor_G", torch.tensor(factors), persistent=False)
        self.mlp = TaskMLP(
            selection.context_dim,
            selection.hidden,
            num_tasks=num_tasks,
            init=nn.init.xavier_normal_,
        )
        self.last = TaskLinear(
            selection.hidden[-1],
            dim,
            num_tasks=num_tasks,
            init=nn.init.xavier_normal_,
        )

    def forward(
        self,
        h_TBH: Float[Tensor, "tasks batch dim"],
        context_BG: Float[Tensor, "batch context"] | None,
    ) -> Float[Tensor, "tasks batch dim"]:
        if self.vector_TG is not None:
            # The same for all rows, so it is worked out once.
            return h_TBH * self._weigh(self.vector_TG[:, None])
        assert context_BG is not None
        if not self.training or context_BG.is_cuda:
            return h_TBH * self._weigh(context_BG.expand(len(h_TBH), -1, -1))
        # Users and items come many times in a batch: the gate of each is worked out
        # once. Not for export, which cannot know how many there are.
        context_UG, place_B = _distinct(context_BG, self.factor_G)
        gate_TUH = self._weigh(context_UG.expand(len(h_TBH), -1, -1))
        return h_TBH * gate_TUH.index_select(1, place_B)

    def _weigh(
        self, context_TBG: Float[Tensor, "tasks rows context"]
    ) -> Float[Tensor, "tasks rows dim"]:
        gate_TBH: Tensor = self.last(self.mlp(context_TBG))
        return 2 * gate_TBH.sigmoid()


def _distinct(
    context_BG: Float[Tensor, "batch context"], factor_G: Int[Tensor, " context"]
) -> tuple[Float[Tensor, "distinct context"], Int[Tensor, " batch"]]:
    """Give the rows that differ, and the place of each row among them.

    Args:
        context_BG: Some rows are equal to the last bit.
        factor_G: Odd numbers that make one key of a row's bits.
    """
    with torch.no_grad():
        bits_BG = context_BG.float().view(torch.int32)
        key_B = (bits_BG * factor_G).sum(1)
        found_U, place_B = torch.unique(key_B, return_inverse=True)
        row_B = torch.arange(len(place_B), device=place_B.device)
        one_U = row_B.new_empty(len(found_U)).scatter_(0, place_B, row_B)
        if not torch.equal(context_BG[one_U[place_B]], context_BG):
            return context_BG, row_B  # two rows have one key
    return context_BG.index_select(0, one_U), place_B


@final
class BilinearFusion(nn.Module):
    r"""Multiplies two vectors part by part, :math:`\sum_j a_j^\top W_j b_j`.

    Args:
        first_dim: Width of one.
        second_dim: Width of the other.
        num_logits: Logits of each task, each a form of its own.
        num_heads: Parts; must divide both widths.

    Shape:
        - first_TBG: ``(tasks, batch, first_dim)``
        - second_TBH: ``(tasks, batch, second_dim)``
        - return: ``(batch, all logits)`` in float32

    Raises:
        ValueError: The heads do not divide a width.
    """

    def __init__(
        self,
        first_dim: int,
        second_dim: int,
        *,
        num_logits: tuple[int, ...],
        num_heads: int,
    ) -> None:
        super().__init__()
        if first_dim % num_heads or second_dim % num_heads:
            raise ValueError(
                f"num_heads must divide both last widths, got {num_heads} for "
                f"{first_dim} and {second_dim}"
            )
        self.num_heads = num_heads
        shape = (num_heads, first_dim // num_heads, second_dim // num_heads)
        self.weight_XKGH = nn.Parameter(torch.empty(sum(num_logits), *shape))
        # As published: one column of all weights, and Xavier's rule for that column.
        std = (2 / (first_dim * second_dim // num_heads + 1)) ** 0.5
        nn.init.normal_(self.weight_XKGH, std=std)
        self.repeat = LogitRepeat(num_logits)

    def forward(
        self,
        first_TBG: Float[Tensor, "tasks batch first"],
        second_TBH: Float[Tensor, "tasks batch second"],
    ) -> Float[Tensor, "batch logits"]:
        first_NBG = self._parts(first_TBG)
        second_NBH = self._parts(second_TBH)
        product_NBH = torch.bmm(first_NBG, self.weight_XKGH.flatten(0, 1))
        form_NB = (product_NBH * second_NBH).sum(2, dtype=torch.float32)
        shape = (len(self.weight_XKGH), self.num_heads, form_NB.shape[1])
        return form_NB.view(shape).sum(1).t()

    def _parts(
        self, h_TBH: Float[Tensor, "tasks batch dim"]
    ) -> Float[Tensor, "parts batch width"]:
        h_XBH: Tensor = self.repeat(h_TBH)
        num_logits, num_rows, width = h_XBH.shape
        shape = (num_logits, num_rows, self.num_heads, width // self.num_heads)
        h_XBKG = h_XBH.reshape(shape)
        return h_XBKG.transpose(1, 2).flatten(0, 1)
