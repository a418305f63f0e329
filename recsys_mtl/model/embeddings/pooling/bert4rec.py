"""Self-attention between events (BERT4Rec)."""

from typing import Literal, NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from recsys_mtl.features.schema import UNSEEN
from recsys_mtl.model.embeddings.pooling._base import AbstractPooling, sum_events

__all__ = ["Bert4Rec", "EventEncoder", "MaskedGuess"]


class _Layout(NamedTuple):
    """Where flattened events lie if each row has a line, newest event first.

    Attributes:
        row_N: Row of each event.
        age_N: Later events of the same row.
        place_N: Place of each event in the flattened lines.
        seen_BL: Places that are read: the events and, of an empty row, the first.
    """

    row_N: Int[Tensor, " events"]
    age_N: Int[Tensor, " events"]
    place_N: Int[Tensor, " events"]
    seen_BL: Bool[Tensor, "batch length"]

    @classmethod
    def of(cls, length_B: Int[Tensor, " batch"], num_events: int) -> "_Layout":
        longest = int(length_B.max()) if num_events else 1
        row_N = torch.repeat_interleave(length_B, output_size=num_events)
        place_N = torch.arange(num_events, device=length_B.device)
        age_N = length_B.cumsum(0).index_select(0, row_N) - 1 - place_N
        seen_BL = place_N.new_ones(longest).cumsum(0) <= length_B.clamp(min=1)[:, None]
        return cls(row_N, age_N, row_N * longest + age_N, seen_BL)

    def lines(
        self, x_NG: Float[Tensor, "events width"]
    ) -> Float[Tensor, "batch length width"]:
        """Lay out; zeros where there is no event."""
        lines_XG = x_NG.new_zeros(self.seen_BL.numel(), x_NG.shape[1])
        lines_XG = lines_XG.index_copy(0, self.place_N, x_NG)
        return lines_XG.view(*self.seen_BL.shape, -1)

    def events(
        self, lines_BLG: Float[Tensor, "batch length width"]
    ) -> Float[Tensor, "events width"]:
        """Undo ``lines``."""
        return lines_BLG.flatten(0, 1).index_select(0, self.place_N)


@final
class EventEncoder(nn.Module):
    r"""Adds the place of each event and lets the events of a row read one another.

    Each layer is :math:`x \leftarrow \mathrm{LN}(x + \mathrm{attention}(x))`,
    :math:`x \leftarrow \mathrm{LN}(x + W_2 \, \mathrm{gelu}(W_1 x))`, in both
    directions of time. All but the attention is computed on the events alone, without
    padding.

    Args:
        width: Width of an event.
        length: Events of a row, at most.
        num_layers: Number of layers.
        num_heads: Heads of the attention; divides ``width``.
        dropout: Probability to drop an attention weight or a unit while training.

    Shape:
        - events_NW: ``(events, width)``
        - return: the same

    Example:
        >>> encoder = EventEncoder(6, length=3, num_layers=2, num_heads=2)
        >>> layout = _Layout.of(torch.tensor([2, 0, 3]), 5)
        >>> encoder(torch.randn(5, 6), layout).shape
        torch.Size([5, 6])
    """

    def __init__(
        self,
        width: int,
        *,
        length: int,
        num_layers: int = 2,
        num_heads: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        assert width % num_heads == 0, "every head reads an equal share of an event"
        self.dropout = dropout
        self.age_LW = nn.Parameter(torch.empty(length, width))
        nn.init.trunc_normal_(self.age_LW, std=_INIT_STD)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            _Layer(width, num_heads, dropout) for _ in range(num_layers)
        )

    def forward(
        self, events_NW: Float[Tensor, "events width"], layout: _Layout
    ) -> Float[Tensor, "events width"]:
        assert layout.seen_BL.shape[1] <= len(self.age_LW), "more events than places"
        x_NW: Tensor = self.norm(events_NW + self.age_LW.index_select(0, layout.age_N))
        x_NW = F.dropout(x_NW, self.dropout, self.training)
        for layer in self.layers:
            x_NW = layer(x_NW, layout)
        return x_NW


@final
class _Layer(nn.Module):
    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.read = _linear(width, 3 * width)
        self.mix = _linear(width, width)
        self.mix_norm = nn.LayerNorm(width)
        self.widen = _linear(width, 4 * width)
        self.narrow = _linear(4 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, x_NW: Float[Tensor, "events width"], layout: _Layout
    ) -> Float[Tensor, "events width"]:
        mixed_NW = self._drop(self.mix(self._attend(x_NW, layout)))
        x_NW = self.mix_norm(x_NW + mixed_NW)
        changed_NW = self._drop(self.narrow(F.gelu(self.widen(x_NW))))
        y_NW: Tensor = self.norm(x_NW + changed_NW)
        return y_NW

    def _attend(
        self, x_NW: Float[Tensor, "events width"], layout: _Layout
    ) -> Float[Tensor, "events width"]:
        lines_BLX = layout.lines(self.read(x_NW))
        heads = lines_BLX.view(*lines_BLX.shape[:2], 3, self.num_heads, -1)
        query, key, value = heads.transpose(1, 3).unbind(2)
        answer = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=layout.seen_BL[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return layout.events(answer.transpose(1, 2).flatten(2))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


@final
class MaskedGuess(nn.Module):
    r"""Guesses the ids of masked events by their rows of the embedding table.

    With :math:`y` what the encoder makes of a masked event and :math:`e_i` the rows of
    the distinct ids masked in the batch,
    :math:`-\log \mathrm{softmax}_i(\mathrm{LN}(\mathrm{gelu}(W y + b)) \cdot e_i)`.

    Args:
        width: Width of an event.
        dim: Width of an embedding.
        weight: Factor of the mean loss of a masked event.
        share: Probability of an event to be masked.

    Shape:
        - encoded_MW: ``(masked, width)``
        - vector_MD: ``(masked, dim)``
        - id_M: ``(masked,)``
        - return: a number, 0 without masked events
    """

    def __init__(self, width: int, dim: int, *, weight: float, share: float) -> None:
        super().__init__()
        self.weight = weight
        self.share = share
        self.mask_W = nn.Parameter(torch.empty(width))
        nn.init.trunc_normal_(self.mask_W, std=_INIT_STD)
        self.dense = _linear(width, dim)
        self.norm = nn.LayerNorm(dim)

    def masked(self, id_N: Int[Tensor, " events"]) -> Bool[Tensor, " events"]:
        """Draw the events to mask; missing and unseen ids are none to guess."""
        drawn_N = torch.rand(id_N.shape, device=id_N.device) < self.share
        return drawn_N & (id_N > UNSEEN)

    def forward(
        self,
        encoded_MW: Float[Tensor, "masked width"],
        vector_MD: Float[Tensor, "masked dim"],
        id_M: Int[Tensor, " masked"],
    ) -> Float[Tensor, ""]:
        ids_U, class_M = torch.unique(id_M, return_inverse=True)
        number_M = torch.arange(len(id_M), device=id_M.device)
        first_U = torch.full_like(ids_U, len(id_M))
        first_U = first_U.scatter_reduce(0, class_M, number_M, "amin")
        guess_MD = self.norm(F.gelu(self.dense(encoded_MW)))
        logit_MU = guess_MD @ vector_MD.index_select(0, first_U).T
        # A worker without a masked event must still give every parameter a gradient.
        loss_M: Tensor = logit_MU.float().log_softmax(1).gather(1, class_M[:, None])
        return loss_M.sum() * (-self.weight / max(len(id_M), 1))


@final
class Bert4Rec(AbstractPooling):
    """Lets the events of a row read one another, then pools what they have become.

    An event of K fields is one vector of width K * D. While training, ``auxiliary``
    masks some events and gives the loss of guessing their ids from the rest; those that
    are pooled are never masked, so the ranker reads in training what it reads later.

    Args:
        encoder: Of width ``num_fields * dim``.
        guess: The auxiliary loss; ``None`` for none.
        pool: The mean over a row's events, its newest event, or an attention over them
            whose query is the candidate.
        query_width: Width of the candidate's vectors side by side.

    Shape:
        - events_NKD: ``(events, fields, dim)``
        - length_B: ``(batch,)``
        - query_BQD: ``(batch, matched, dim)``, read by the pool ``target`` alone
        - return: ``(batch, fields, dim)``

    Deviations:
        The encoder is one feature of a ranker, so its output is pooled; the paper
        appends a mask and reads the output there, and so also trains on rows with the
        newest event alone masked. Masked ids are guessed among the distinct masked ids
        of the batch; the paper has a softmax over all items, with a bias for each, but
        here tables may be sharded, and no worker has all rows. Each event is masked
        with probability ``share``, where the paper masks that share of each row. The
        paper's events are ids alone; here all fields of an event are masked, and the
        first one is guessed. Missing and unseen ids are not guessed.

    References:
        Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder
        Representations from Transformer", CIKM 2019, doi:10.1145/3357384.3357895.

    Example:
        >>> pooling = Bert4Rec(EventEncoder(12, length=3))
        >>> length_B = torch.tensor([2, 0, 3])
        >>> pooling(torch.randn(5, 3, 4), length_B, torch.empty(3, 0, 4)).shape
        torch.Size([3, 3, 4])
    """

    def __init__(
        self,
        encoder: EventEncoder,
        *,
        guess: MaskedGuess | None = None,
        pool: Literal["mean", "last", "target"] = "mean",
        query_width: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.guess = guess
        self.pool = pool
        if pool == "target":
            assert query_width > 0, "a candidate is needed to compare with"
            self.query = _linear(query_width, encoder.age_LW.shape[1])

    def forward(
        self,
        events_NKD: Float[Tensor, "events fields dim"],
        length_B: Int[Tensor, " batch"],
        query_BQD: Float[Tensor, "batch matched dim"],
    ) -> Float[Tensor, "batch fields dim"]:
        layout = _Layout.of(length_B, len(events_NKD))
        encoded_NW = self.encoder(events_NKD.flatten(1), layout)
        weight_N1 = self._weight(encoded_NW, length_B, query_BQD, layout)
        weighted_NKD = (weight_N1 * encoded_NW).view_as(events_NKD)
        return sum_events(weighted_NKD.to(events_NKD.dtype), length_B)

    @property
    def reads_candidate(self) -> bool:
        return self.pool == "target"

    def prepare(
        self,
        events_EKD: Float[Tensor, "events fields dim"],
        length_R: Int[Tensor, " requests"],
    ) -> list[tuple[Tensor, ...]]:
        layout = _Layout.of(length_R, len(events_EKD))
        encoded_EW: Tensor = self.encoder(events_EKD.flatten(1), layout)
        encoded = encoded_EW.view_as(events_EKD)
        return [(events,) for events in torch.split(encoded, length_R.tolist())]

    def pool_one(
        self,
        shared: tuple[Tensor, ...],
        query_NQD: Float[Tensor, "rows matched dim"],
    ) -> Float[Tensor, "rows fields dim"]:
        (encoded_LKD,) = shared
        encoded_LW = encoded_LKD.flatten(1)
        score_NL = self.query(query_NQD.flatten(1)) @ encoded_LW.t()
        share_NL = (score_NL / encoded_LW.shape[1] ** 0.5).softmax(1)
        pooled_NW: Tensor = share_NL @ encoded_LW
        return pooled_NW.view(len(query_NQD), *encoded_LKD.shape[1:])

    def auxiliary(
        self,
        events_NKD: Float[Tensor, "events fields dim"],
        length_B: Int[Tensor, " batch"],
        id_N: Int[Tensor, " events"],
    ) -> Float[Tensor, ""]:
        if self.guess is None:
            return super().auxiliary(events_NKD, length_B, id_N)
        masked_N = self.guess.masked(id_N)
        layout = _Layout.of(length_B, len(events_NKD))
        events_NW = events_NKD.flatten(1)
        shown_NW = self.guess.mask_W.where(masked_N[:, None], events_NW)
        encoded_NW = self.encoder(shown_NW, layout)
        loss: Tensor = self.guess(
            encoded_NW[masked_N], events_NKD[masked_N, 0], id_N[masked_N]
        )
        return loss

    def _weight(
        self,
        encoded_NW: Float[Tensor, "events width"],
        length_B: Int[Tensor, " batch"],
        query_BQD: Float[Tensor, "batch matched dim"],
        layout: _Layout,
    ) -> Float[Tensor, "events 1"]:
        """Share of each event in the pooled vector of its row."""
        match self.pool:
            case "mean":
                return 1.0 / length_B.index_select(0, layout.row_N)[:, None]
            case "last":
                return (layout.age_N == 0).to(encoded_NW.dtype)[:, None]
            case "target":
                query_BW = self.query(query_BQD.flatten(1))
                query_NW = query_BW.index_select(0, layout.row_N)
                score_N1 = (query_NW * encoded_NW).sum(1, keepdim=True)
                score_BL1 = layout.lines(score_N1 / encoded_NW.shape[1] ** 0.5)
                score_BL1 = score_BL1.where(layout.seen_BL[:, :, None], -torch.inf)
                return layout.events(score_BL1.softmax(1))


def _linear(fan_in: int, fan_out: int) -> nn.Linear:
    layer = nn.Linear(fan_in, fan_out)
    nn.init.trunc_normal_(layer.weight, std=_INIT_STD)
    nn.init.zeros_(layer.bias)
    return layer


_INIT_STD = 0.02  # that of the paper, for all weights
