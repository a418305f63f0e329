"""A small transformer over the events of a history, one for many tasks."""

import math
from collections.abc import Sequence
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

__all__ = ["Norm", "Slots", "TaskEncoder", "lay_out"]

_SHORT = 32
"""Slots times heads up to which scores of whole events beat an attention by head."""


class Norm(NamedTuple):
    """The affine part of a LayerNorm, one a task.

    Attributes:
        scale_TG: What normalised numbers are multiplied by.
        shift_TG: What is then added.
    """

    scale_TG: Float[Tensor, "tasks width"]
    shift_TG: Float[Tensor, "tasks width"]

    def repeat(self, times: int) -> "Norm":
        """Give the norm of as many vectors side by side, each normalised by itself."""
        return Norm(self.scale_TG.repeat(1, times), self.shift_TG.repeat(1, times))

    def into(
        self,
        weight_XG: Float[Tensor, "out width"],
        bias_X: Float[Tensor, " out"] | None = None,
    ) -> tuple[Float[Tensor, "tasks width out"], Float[Tensor, "tasks 1 out"]]:
        """Fold into the affine map that follows: one map of normalised numbers a task.

        Args:
            weight_XG: Of the map.
            bias_X: Of the map; none adds nothing.

        Returns:
            Weights and biases, as ``torch.baddbmm`` takes them.

        Example:
            >>> norm = Norm(torch.tensor([[2.0]]), torch.tensor([[3.0]]))
            >>> [x.item() for x in norm.into(torch.tensor([[5.0]]), torch.ones(1))]
            [10.0, 16.0]
        """
        weight_TGX = self.scale_TG[:, :, None] * weight_XG.t()
        return weight_TGX, F.linear(self.shift_TG, weight_XG, bias_X)[:, None]


class Slots(NamedTuple):
    """Where flattened events lie once every row is padded to one length.

    Attributes:
        slot_N: Place among all slots, the first row's before the second's.
        age_N: How many events of the row came after it; 0 for the newest.
        open_BL: Slots that may be looked at: those with events, and the first one of
            a row without any, for a softmax needs something.
    """

    slot_N: Int[Tensor, " events"]
    age_N: Int[Tensor, " events"]
    open_BL: Bool[Tensor, "batch length"]


def lay_out(
    events_NKD: Float[Tensor, "events fields dim"],
    length_B: Int[Tensor, " batch"],
    length: int,
) -> Slots:
    """Find the slots of jagged events.

    Args:
        events_NKD: The events; their number is what counts.
        length_B: Events of each row.
        length: Slots of a row; at least its events.

    Example:
        >>> slots = lay_out(torch.zeros(3, 1, 1), torch.tensor([1, 0, 2]), length=4)
        >>> slots.slot_N.tolist(), slots.age_N.tolist()
        ([0, 8, 9], [0, 1, 0])
    """
    num_events = events_NKD.shape[0]
    row_N = torch.repeat_interleave(length_B, output_size=num_events)
    place_N = torch.arange(num_events, device=length_B.device)
    end_N = length_B.cumsum(0).index_select(0, row_N)
    length_N = length_B.index_select(0, row_N)
    place_L = torch.arange(length, device=length_B.device)
    return Slots(
        slot_N=row_N * length + place_N - (end_N - length_N),
        age_N=end_N - 1 - place_N,
        open_BL=place_L < length_B.clamp(min=1)[:, None],
    )


@final
class TaskEncoder(nn.Module):
    r"""Lets the events of a row read each other: pre-norm transformer layers.

    A layer is :math:`x \leftarrow x + \mathrm{attention}(n_1(x))`, then
    :math:`x \leftarrow x + W \mathrm{GELU}(V n_2(x))`. Its weights are shared by all
    tasks; the norms :math:`n` come from outside, one a task. Rows are padded for the
    attention alone, and what is padded is masked there.

    Args:
        width: Numbers of an event.
        num_heads: Heads of the attention; they divide ``width``.
        num_layers: Layers; at least one.

    Shape:
        - x_SNG: ``(1 or tasks, events, width)``; 1 where tasks start from the same
        - norms: ``num_norms``; the last one is left to the affine map that follows
        - return: ``(tasks, events, width)``, normalised but for the affine part
    """

    def __init__(self, width: int, *, num_heads: int, num_layers: int) -> None:
        super().__init__()
        assert width % num_heads == 0, "every head has the same width"
        self.width = width
        self.num_norms = 2 * num_layers + 1
        self.layers = nn.ModuleList(
            _Layer(width, num_heads=num_heads) for _ in range(num_layers)
        )

    def forward(
        self,
        x_SNG: Float[Tensor, "sharing events width"],
        norms: Sequence[Norm],
        slots: Slots,
    ) -> Float[Tensor, "tasks events width"]:
        for number, layer in enumerate(self.layers):
            x_SNG = layer(x_SNG, norms[2 * number], norms[2 * number + 1], slots)
        return F.layer_norm(x_SNG, x_SNG.shape[2:])


class _Layer(nn.Module):
    r"""One layer, arranged so that little is done once a task.

    Scales and shifts of norms go into the weights beside them, for these are small
    and events are many. For short histories neither keys nor values are ever made: a
    score :math:`\langle Q x_l, K x_m \rangle` is that of :math:`K^\top Q x_l` with
    :math:`x_m`, and :math:`V` acts on what was mixed as on what is to be mixed. So the
    tasks and heads of a row read the same normalised events, one product for all; but
    these are wider than a head, which long histories and many heads do not pay for.
    """

    def __init__(self, width: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        # A bias of keys would have no effect: it moves all of a softmax alike.
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width)
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)

    def forward(self, x_SNG: Tensor, first: Norm, second: Norm, slots: Slots) -> Tensor:
        normed_SNG = F.layer_norm(x_SNG, x_SNG.shape[2:])
        x_TNG = x_SNG + self._attend(normed_SNG, first, slots)
        weight_TGX, bias_T1X = second.into(self.inner.weight, self.inner.bias)
        normed_TNG = F.layer_norm(x_TNG, x_TNG.shape[2:])
        inner_TNX = torch.baddbmm(bias_T1X, normed_TNG, weight_TGX)
        h_TNG: Tensor = self.outer(F.gelu(inner_TNX))
        return x_TNG + h_TNG

    def _attend(self, x_SNG: Tensor, norm: Norm, slots: Slots) -> Tensor:
        """Give what the attention adds, from normalised events."""
        length = slots.open_BL.shape[1]
        if length * self.num_heads > _SHORT:
            return self._attend_by_head(x_SNG, norm, slots)
        query_AJG, key_AJG, value_AJG = self._heads()
        mix_AJH = self.mix.weight.t().view(*value_AJG.shape[:2], -1)
        value_AGH = torch.bmm(value_AJG.transpose(1, 2), mix_AJH)
        if length == 1:
            # An event alone looks at itself, whatever the score.
            weight_TGH, bias_T1H = norm.into(value_AGH.sum(0).t(), self.mix.bias)
            own_TNG = x_SNG.expand(len(weight_TGH), -1, -1)
            return torch.baddbmm(bias_T1H, own_TNG, weight_TGH)
        score_AGG = torch.bmm(key_AJG.transpose(1, 2), query_AJG)
        score_XG = score_AGG.flatten(0, 1) / math.sqrt(key_AJG.shape[1])
        of_heads = norm.repeat(self.num_heads)
        weight_TGX, bias_T1X = norm.into(score_XG)
        scale_T1X = of_heads.scale_TG[:, None]
        seen_TBX = _look(x_SNG, weight_TGX * scale_T1X, bias_T1X * scale_T1X, slots)
        weight_TXH, bias_T1H = of_heads.into(value_AGH.flatten(0, 1).t(), self.mix.bias)
        mixed_TBH = torch.baddbmm(bias_T1H, seen_TBX, weight_TXH)
        return mixed_TBH.index_select(1, slots.slot_N)

    def _attend_by_head(self, x_SNG: Tensor, norm: Norm, slots: Slots) -> Tensor:
        weight_TGX, bias_T1X = norm.into(self.query_key_value.weight)
        num_tasks, width, _ = weight_TGX.shape
        num_rows, length = slots.open_BL.shape
        x_TNG = x_SNG.expand(num_tasks, -1, -1)
        flat_TNX = torch.baddbmm(bias_T1X, x_TNG, weight_TGX)
        padded = flat_TNX.new_zeros(num_tasks, num_rows * length, 3 * width)
        padded = padded.index_copy(1, slots.slot_N, flat_TNX)
        heads = padded.view(num_tasks * num_rows, length, 3, self.num_heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind()
        mask = slots.open_BL.repeat(num_tasks, 1)[:, None, None]
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        seen_TXG = seen.transpose(1, 2).reshape(num_tasks, num_rows * length, width)
        mixed_TNG: Tensor = self.mix(seen_TXG.index_select(1, slots.slot_N))
        return mixed_TNG

    def _heads(self) -> tuple[Tensor, ...]:
        """Weights of queries, keys and values; heads are ``A``, their width ``J``."""
        weight_XG = self.query_key_value.weight
        return weight_XG.view(3, self.num_heads, -1, weight_XG.shape[1]).unbind()


def _look(x_SNG: Tensor, weight_TGX: Tensor, bias_T1X: Tensor, slots: Slots) -> Tensor:
    """Give the mean event that each slot sees with each head, by a softmax.

    Args:
        x_SNG: Events.
        weight_TGX: Makes an event a query of each head, to be multiplied with events.
        bias_T1X: Is added to the queries.
        slots: Places of the events; those that are closed are not seen.
    """
    (sharing, _, width), num_tasks = x_SNG.shape, len(weight_TGX)
    num_rows, length = slots.open_BL.shape
    padded = x_SNG.new_zeros(sharing, num_rows * length, width)
    padded = padded.index_copy(1, slots.slot_N, x_SNG)
    query = torch.baddbmm(
        _side_by_side(bias_T1X, sharing), padded, _side_by_side(weight_TGX, sharing)
    )
    # One product a row: all tasks that share its events, all heads and all slots.
    event_RLG = padded.view(sharing * num_rows, length, width)
    query_RXG = query.view(sharing * num_rows, -1, width)
    closed_BL1 = ~slots.open_BL[:, :, None]
    mask_BL1 = torch.zeros_like(closed_BL1, dtype=x_SNG.dtype)
    mask_RL1 = mask_BL1.masked_fill(closed_BL1, -torch.inf).repeat(sharing, 1, 1)
    # What is looked at comes before who looks: a row has few events, and over so few
    # numbers a softmax along an inner axis takes half the time of one along the last.
    score_RLX = torch.baddbmm(mask_RL1, event_RLG, query_RXG.transpose(1, 2))
    seen = torch.bmm(score_RLX.softmax(1).transpose(1, 2), event_RLG)
    seen = seen.view(sharing, num_rows * length, num_tasks // sharing, -1)
    return seen.transpose(1, 2).flatten(0, 1)


def _side_by_side(weight_TGX: Tensor, sharing: int) -> Tensor:
    """Join the maps of tasks that share events into one: ``(sharing, width, all)``."""
    num_tasks, *widths = weight_TGX.shape
    of_sharing = weight_TGX.view(sharing, num_tasks // sharing, *widths)
    return of_sharing.transpose(1, 2).flatten(2)
