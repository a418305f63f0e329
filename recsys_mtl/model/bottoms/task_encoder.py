"""A small transformer over the events of a history, one for many tasks."""

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

__all__ = ["Norm", "Slots", "TaskEncoder", "lay_out"]


class Norm(NamedTuple):
    """The affine part of a LayerNorm, one a task.

    Attributes:
        scale_TG: What normalised numbers are multiplied by.
        shift_TG: What is then added.
    """

    scale_TG: Float[Tensor, "tasks width"]
    shift_TG: Float[Tensor, "tasks width"]

    def __call__(
        self, x_TNG: Float[Tensor, "tasks events width"]
    ) -> Float[Tensor, "tasks events width"]:
        """Normalise each event of each task."""
        scale_TNG, shift_TNG = self.scale_TG[:, None], self.shift_TG[:, None]
        return F.layer_norm(x_TNG, x_TNG.shape[2:]) * scale_TNG + shift_TNG


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
        num_layers: Layers.

    Shape:
        - x_TNG: ``(tasks, events, width)``
        - return: the same, normalised by the last of ``num_norms`` norms
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
        x_TNG: Float[Tensor, "tasks events width"],
        norms: Sequence[Norm],
        slots: Slots,
    ) -> Float[Tensor, "tasks events width"]:
        for number, layer in enumerate(self.layers):
            x_TNG = layer(x_TNG, norms[2 * number], norms[2 * number + 1], slots)
        return norms[-1](x_TNG)


class _Layer(nn.Module):
    def __init__(self, width: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        # A bias of keys would have no effect: it moves all of a softmax alike.
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width)
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)

    def forward(self, x_TNG: Tensor, first: Norm, second: Norm, slots: Slots) -> Tensor:
        x_TNG = x_TNG + self.mix(self._attend(first(x_TNG), slots))
        h_TNG: Tensor = self.outer(F.gelu(self.inner(second(x_TNG))))
        return x_TNG + h_TNG

    def _attend(self, x_TNG: Tensor, slots: Slots) -> Tensor:
        num_tasks, _, width = x_TNG.shape
        num_rows, length = slots.open_BL.shape
        flat_TNG = self.query_key_value(x_TNG)
        padded = flat_TNG.new_zeros(num_tasks, num_rows * length, 3 * width)
        padded = padded.index_copy(1, slots.slot_N, flat_TNG)
        heads = padded.view(num_tasks * num_rows, length, 3, self.num_heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind()
        mask = slots.open_BL.repeat(num_tasks, 1)[:, None, None]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed = mixed.transpose(1, 2).reshape(num_tasks, num_rows * length, width)
        return mixed.index_select(1, slots.slot_N)
