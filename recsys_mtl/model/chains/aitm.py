"""Adaptive information transfer multi-task (AITM)."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from recsys_mtl.model.chains._base import AbstractChain, Logits

__all__ = ["AITM"]


@final
class AITM(AbstractChain):
    r"""Hands each step what is known of the step before, and keeps it no more likely.

    For steps :math:`t` in order, with :math:`q_t` the hidden vector of a step,
    :math:`z_1 = q_1`, :math:`p_{t-1} = \phi(W_{t-1} z_{t-1} + b_{t-1})` and
    :math:`z_t = \sum_{u \in \{p_{t-1}, q_t\}}
    \mathrm{softmax}_u(h_2(u) \cdot h_3(u) / \sqrt H) \, h_1(u)`. The calibrator adds
    :math:`\alpha \sum_t \overline{\max(\hat y_t - \hat y_{t-1}, 0)}` to the loss, the
    mean over all rows of the batch: it is about predictions, and needs no label.

    Args:
        dim: Width of a hidden vector.
        steps: Places of the tasks, in the order in which they happen; two or more.
        dropout: Probability to drop an entry of what is handed on while training.
        calibrator_weight: The factor alpha; 0 for no calibrator.

    Shape:
        - h_BTH: ``(batch, tasks, dim)``
        - transfer: the same shape; tasks that are no step are untouched

    Deviations:
        :math:`q_t` is what the gating gives and the towers follow the transfer; in the
        paper each step has a tower over the shared embeddings before the transfer, and
        one layer after it. As in the authors' ``AITM_standard.py`` the bias-free h1,
        h2 and h3 are shared by all pairs of steps and start normal with deviation 0.01;
        as in both of their programs g is one ReLU layer with dropout. The paper's 0.6
        is the default for alpha, not the 0.3 of ``AITM_standard.py``. That program's
        batch normalisation is part of its towers, and not of this.

    References:
        Xi et al., "Modeling the Sequential Dependence among Audience Multi-step
        Conversions with Multi-task Learning in Targeted Display Advertising", KDD 2021,
        doi:10.1145/3447548.3467071.

    Example:
        >>> chain = AITM(4, (0, 2))
        >>> chain.transfer(torch.randn(5, 3, 4)).shape
        torch.Size([5, 3, 4])
        >>> chain.penalty((torch.zeros(5, 1), torch.zeros(5, 1), torch.zeros(5, 1)))
        tensor(0.)
    """

    def __init__(
        self,
        dim: int,
        steps: tuple[int, ...],
        *,
        dropout: float = 0.0,
        calibrator_weight: float = 0.6,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.steps = steps
        self.dropout = dropout
        self.calibrator_weight = calibrator_weight
        self.information = nn.ModuleList(nn.Linear(dim, dim) for _ in steps[1:])
        # h1, h2 and h3 in one product.
        self.attention = nn.Linear(dim, 3 * dim, bias=False)
        nn.init.normal_(self.attention.weight, std=0.01)

    @property
    def transfers(self) -> bool:
        return True

    def transfer(
        self, h_BTH: Float[Tensor, "batch tasks hidden"]
    ) -> Float[Tensor, "batch tasks hidden"]:
        hidden = list(h_BTH.unbind(1))
        # One step after the other: each reads what the one before has become.
        for before, step, layer in zip(
            self.steps[:-1], self.steps[1:], self.information, strict=True
        ):
            told_BH = F.relu(layer(hidden[before]))
            told_BH = F.dropout(told_BH, self.dropout, self.training)
            # Under autocast a product is bf16, whatever the gating gave.
            hidden[step] = self._attend(told_BH.to(h_BTH.dtype), hidden[step])
        return torch.stack(hidden, dim=1)

    def compose(self, logits: Logits) -> Logits:
        return logits

    def start(self, logits: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
        return [tuple(task) for task in logits]

    def penalty(self, logits: Logits) -> Float[Tensor, ""]:
        prob_BK = torch.cat([logits[t] for t in self.steps], dim=1).sigmoid()
        excess_BK = F.relu(prob_BK.diff(dim=1))
        return self.calibrator_weight * excess_BK.sum(1).mean()

    def _attend(
        self,
        told_BH: Float[Tensor, "batch hidden"],
        own_BH: Float[Tensor, "batch hidden"],
    ) -> Float[Tensor, "batch hidden"]:
        both_B2H = torch.stack([told_BH, own_BH], dim=1)
        value_B2H, query_B2H, key_B2H = self.attention(both_B2H).chunk(3, dim=-1)
        score_B2 = (query_B2H * key_B2H).sum(-1) / self.dim**0.5
        read_BH: Tensor = (score_B2.softmax(-1)[:, :, None] * value_B2H).sum(1)
        return read_BH.to(own_BH.dtype)
