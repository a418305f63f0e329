"""How long until it happens: time to leave, to convert, to wear out."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from recsys_mtl.errors import ConfigError
from recsys_mtl.model.heads._base import AbstractHead

__all__ = ["SurvivalHead"]


@final
class SurvivalHead(AbstractHead):
    r"""One logit of the hazard in each bin of time.

    :math:`h_j = \sigma(x_j)` is the probability of the event in bin j given none
    before. A label is a signed time: ``t`` for an event at t, ``-t`` for a row watched
    until t without one; the sign bit counts, so 0 and -0.0 differ. Bins hold their
    upper edge. With b the bin of the label, the loss in nats is

    .. math:: -\log h_b - \sum_{i<b} \log(1 - h_i) \;[\text{event}], \qquad
        -\sum_{i<b} \log(1 - h_i) - f \log(1 - h_b) \;[\text{censored}],

    where f is the part of bin b that was watched. What comes after the last edge is
    censored at it. Within a bin the rate of the event is constant, so survival falls
    geometrically: :math:`S(t) = e^{-\Lambda(t)}` and :math:`\Lambda` rises by
    :math:`-\log(1 - h_j)` over bin j. Prediction: the expected time until the event or
    the last edge, whichever is first, the area under S. Details: ``median``, the time
    at which S is one half (the last edge if it never is); at each horizon
    ``survival@TIME``, and ``hazard@TIME``, the hazard of the bin that holds it.

    Args:
        edges: Upper edges of the bins, rising, in the unit of the label.
        hazards: Share of those who enter a bin whose event falls into it.
        horizons: Times to tell survival and hazard at.

    Shape:
        - logits_BC: ``(batch, bins)``
        - label_B: ``(batch,)``, signed times
        - loss, predict: ``(batch,)``
        - curve: ``(batch, bins)``, survival at the edges

    Raises:
        ConfigError: A horizon is after the last edge.

    Deviations:
        - The papers' losses know bins alone: who is censored in bin b counts as having
          lived through it, or (Gensheimer and Narasimhan) through half of it. Here f is
          the part watched, which is closer where bins are wide; on an edge all agree.
          With bins so wide that many are lost inside one, hazards still come out low:
          take more bins.
        - Kitada, Iyatomi and Seki print no loss that could be read; this is the
          textbook's. Their two terms are two tasks over one label, with bins of their
          own; their weighting by click rate is the task's ``row_weight``.

    References:
        Kitada, Iyatomi and Seki, "Ad Creative Discontinuation Prediction with
        Multi-Modal Multi-Task Neural Survival Networks", Applied Sciences 2022,
        doi:10.3390/app12073594, arXiv:2204.11588.
        Gensheimer and Narasimhan, "A Scalable Discrete-Time Survival Model for Neural
        Networks", PeerJ 2019, doi:10.7717/peerj.6257.

    Example:
        >>> head = SurvivalHead((1.0, 3.0), hazards=(0.5, 0.5))
        >>> head.curve(torch.tensor(head.initial_logits)[None])
        tensor([[0.5000, 0.2500]])
    """

    def __init__(
        self,
        edges: Sequence[float],
        hazards: Sequence[float],
        horizons: Sequence[float] = (),
    ) -> None:
        assert len(edges) == len(hazards) > 0
        assert edges[0] > 0
        assert all(low < high for low, high in pairwise(edges))
        if horizons and max(horizons) > edges[-1]:
            raise ConfigError(
                f"horizons must be at most the last edge of the bins, {edges[-1]:g}, "
                f"got {max(horizons):g}; ask for an earlier one"
            )
        self.num_logits = len(edges)
        self.edges = tuple(edges)
        self.horizons = tuple(horizons)
        # A bin without events would start at an infinite logit and never learn.
        self.hazards = tuple(min(max(h, _RAREST), 1.0 - _RAREST) for h in hazards)

    @property
    def initial_logits(self) -> tuple[float, ...]:
        return tuple(math.log(h / (1.0 - h)) for h in self.hazards)

    def loss(
        self,
        logits_BC: Float[Tensor, "batch logits"],
        label_B: Float[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        time_B = label_B.abs()
        bin_B = self._bin(time_B)
        event_B = ~label_B.signbit() & (bin_B < self.num_logits)
        bin_B1 = bin_B.clamp(max=self.num_logits - 1)[:, None]
        lived_BC = self._lived(time_B)
        # In its own bin an event has lost, and so has not lived through, any part.
        own_B1 = lived_BC.gather(1, bin_B1).where(~event_B[:, None], 0.0)
        lived_BC = lived_BC.scatter(1, bin_B1, own_B1)
        survived_B = (F.softplus(logits_BC) * lived_BC).sum(1)
        event_loss_B = -F.logsigmoid(logits_BC.gather(1, bin_B1)[:, 0])
        return survived_B + event_loss_B.where(event_B, 0.0)

    def predict(
        self, logits_BC: Float[Tensor, "batch logits"]
    ) -> Float[Tensor, " batch"]:
        rise_BC = F.softplus(logits_BC)
        start_BC = F.pad(self.curve(logits_BC)[:, :-1], (1, 0), value=1.0)
        # Mean of exp(-rise * u) over u in 0..1; its series where the quotient is 0/0.
        small_BC = rise_BC < _SMALL
        safe_BC = rise_BC.where(~small_BC, 1.0)
        mean_BC = torch.where(
            small_BC, 1.0 - rise_BC / 2, -(-safe_BC).expm1() / safe_BC
        )
        _, width_C = self._bounds(logits_BC)
        return (start_BC * mean_BC * width_C).sum(1)

    @property
    def points(self) -> tuple[float, ...]:
        """The edges."""
        return self.edges

    def curve(
        self, logits_BC: Float[Tensor, "batch logits"]
    ) -> Float[Tensor, "batch points"]:
        return (-F.softplus(logits_BC).cumsum(1)).exp()

    def details(
        self, logits_BC: Float[Tensor, "batch logits"]
    ) -> dict[str, Float[Tensor, " batch"]]:
        details = {"median": self._median(logits_BC)}
        rise_BC = F.softplus(logits_BC)
        for horizon in self.horizons:
            time_1 = logits_BC.new_tensor([horizon])
            bin_1 = int(self._bin(time_1))
            lived_1C = self._lived(time_1)
            details[f"survival@{horizon:g}"] = (-(rise_BC * lived_1C).sum(1)).exp()
            details[f"hazard@{horizon:g}"] = logits_BC[:, bin_1].sigmoid()
        return details

    def _median(
        self, logits_BC: Float[Tensor, "batch logits"]
    ) -> Float[Tensor, " batch"]:
        rise_BC = F.softplus(logits_BC)
        risen_BC = rise_BC.cumsum(1)
        half = math.log(2.0)
        bin_B1 = (risen_BC < half).sum(1, keepdim=True).clamp(max=self.num_logits - 1)
        start_C, width_C = self._bounds(logits_BC)
        rise_B = rise_BC.gather(1, bin_B1)[:, 0]
        before_B = risen_BC.gather(1, bin_B1)[:, 0] - rise_B
        # Never above 1 but where the median lies after the last edge.
        part_B = ((half - before_B) / rise_B.clamp(min=_SMALL**2)).clamp(0.0, 1.0)
        bin_B = bin_B1[:, 0]
        return start_C[bin_B] + part_B * width_C[bin_B]

    def _bounds(
        self, like: Tensor
    ) -> tuple[Float[Tensor, " logits"], Float[Tensor, " logits"]]:
        """Start and width of the bins."""
        end_C = torch.tensor(self.edges, device=like.device)
        start_C = F.pad(end_C[:-1], (1, 0))
        return start_C, end_C - start_C

    def _bin(self, time_B: Float[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Bin that holds a time; one past the last for what comes after all edges."""
        return torch.bucketize(time_B, torch.tensor(self.edges, device=time_B.device))

    def _lived(self, time_B: Float[Tensor, " batch"]) -> Float[Tensor, "batch logits"]:
        """Part of each bin that lies before a time."""
        start_C, width_C = self._bounds(time_B)
        return ((time_B[:, None] - start_C) / width_C).clamp(0.0, 1.0)


_RAREST = 1e-6
_SMALL = 1e-3
