"""Gates that see some of the experts each, computed together."""

import itertools
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from recsys_mtl.model.split_rows import Rows, SplitRows, num_rows

__all__ = ["GateBank"]

_BLOCK = 16


@final
class GateBank(nn.Module):
    r"""Weighs for every gate the experts that it sees.

    Gate :math:`t` sees the experts :math:`V_t` and weighs them by
    :math:`\mathrm{softmax}_{e \in V_t}(w_{te} \cdot x_t)`; all others by 0. A gate of
    a single expert has no choice, and nothing to learn: it weighs that expert by 1.

    Args:
        dim: Width of the input.
        visible: For each gate the places of the experts that it sees; at least one.
        num_experts: Number of experts.
        sigmoid_of_one: Whether a gate of a single expert weighs it by a sigmoid.

    Shape:
        - x_BSD: ``(batch, 1 or gates, dim)``
        - return: ``(batch, gates, experts)``

    Example:
        >>> gates = GateBank(4, ((0, 2), (1, 2)), num_experts=3)
        >>> gates(torch.randn(5, 1, 4))[0, 1, 0]
        tensor(0., grad_fn=<SelectBackward0>)
    """

    def __init__(
        self,
        dim: int,
        visible: tuple[tuple[int, ...], ...],
        *,
        num_experts: int,
        sigmoid_of_one: bool = False,
    ) -> None:
        super().__init__()
        learning = [len(seen) > 1 or sigmoid_of_one for seen in visible]
        sizes = [len(v) for v, learns in zip(visible, learning, strict=True) if learns]
        self.gates_XD = nn.Parameter(torch.empty(sum(sizes), dim)) if sizes else None
        if self.gates_XD is not None:
            for gate_ED in torch.split(self.gates_XD.detach(), sizes):
                nn.init.xavier_uniform_(gate_ED)
        row_TE = torch.zeros(len(visible), num_experts, dtype=torch.long)
        mask_TE = torch.full((len(visible), num_experts), -torch.inf)
        rows = itertools.count()
        for t, (seen, learns) in enumerate(zip(visible, learning, strict=True)):
            for e in seen:
                mask_TE[t, e] = 0.0
                if learns:
                    row_TE[t, e] = next(rows)
        alone_T = torch.tensor([sigmoid_of_one and len(seen) == 1 for seen in visible])
        self.row_TE: Tensor
        self.mask_TE: Tensor
        self.alone_T: Tensor
        self.register_buffer("row_TE", row_TE, persistent=False)
        self.register_buffer("mask_TE", mask_TE, persistent=False)
        self.register_buffer("alone_T", alone_T, persistent=False)

    def forward(self, x_BSD: Rows) -> Float[Tensor, "batch gates experts"]:
        if self.gates_XD is None:
            return self.mask_TE.exp().expand(num_rows(x_BSD), -1, -1)
        # What a gate does not see has some weights here too; the mask takes it out.
        num_gates, num_experts = self.row_TE.shape
        if isinstance(x_BSD, SplitRows):
            logit_BX = x_BSD.linear(self.gates_XD)
            logit_BY = logit_BX.index_select(1, self.row_TE.flatten())
            return self._weigh(logit_BY.view(-1, num_gates, num_experts))
        gates_YD = self.gates_XD.index_select(0, self.row_TE.flatten())
        if x_BSD.shape[1] == 1:
            logit_BY = F.linear(x_BSD.flatten(0, 1), gates_YD)
            logit_BTE = logit_BY.view(-1, num_gates, num_experts)
        else:
            gates_TED = gates_YD.view(num_gates, num_experts, -1)
            # A batch of products is far slower when they are narrow than when they are
            # wide enough for a block of numbers: on a CPU 16 columns cost less than 4.
            gates_TED = F.pad(gates_TED, (0, 0, 0, max(_BLOCK - num_experts, 0)))
            logit_TBE = torch.bmm(x_BSD.transpose(0, 1), gates_TED.transpose(1, 2))
            logit_BTE = logit_TBE[..., :num_experts].transpose(0, 1)
        return self._weigh(logit_BTE)

    def _weigh(
        self, logit_BTE: Float[Tensor, "batch gates experts"]
    ) -> Float[Tensor, "batch gates experts"]:
        logit_BTE = logit_BTE + self.mask_TE
        softmax_BTE = logit_BTE.softmax(-1)
        return torch.where(self.alone_T[:, None], logit_BTE.sigmoid(), softmax_BTE)
