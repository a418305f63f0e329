"""What experts say and how gates weigh them, over many rows."""

import math
import statistics
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from recsys_mtl.model.gating import GateLevel
from recsys_mtl.xray.result import ExpertHealth, GateHealth, LevelHealth

__all__ = ["USED_SHARE", "LevelTally"]

USED_SHARE = 0.5
"""A gate uses an expert that gets at least this part of an equal share: below it the
expert counts for less than half of what it would with no gate at all."""

_TINY = 1e-12
_TASK, _GROUP, _SHARED = "task:", "group:", "shared"


@final
class LevelTally:
    """Adds up one level over batches.

    Args:
        level: Its first batch says what there is; it is not added yet.
        tasks: Names.
    """

    def __init__(self, level: GateLevel, tasks: Sequence[str]) -> None:
        self._name = level.name
        self._tasks = tuple(tasks)
        self._owners, self._gates = level.experts, level.gates
        num_experts, width = level.expert_BSEH.shape[2:]
        num_gates = len(self._gates)
        self._rows = 0
        self._outputs = 0
        self._zeros_E = torch.zeros(num_experts, dtype=torch.float64)
        self._sum_E = torch.zeros_like(self._zeros_E)
        self._square_E = torch.zeros_like(self._zeros_E)
        self._alive_EH = torch.zeros(num_experts, width, dtype=torch.bool)
        self._weight_GE = torch.zeros(num_gates, num_experts, dtype=torch.float64)
        self._seen_GE = torch.zeros(num_gates, num_experts, dtype=torch.bool)
        self._entropy_G = torch.zeros(num_gates, dtype=torch.float64)
        self._gradient_TE = torch.zeros(len(tasks), num_experts, dtype=torch.float64)

    def add(self, level: GateLevel, squares_TE: Float[Tensor, "tasks experts"]) -> None:
        """Add one batch.

        Args:
            level: Of the batch.
            squares_TE: As in ``Pull``.
        """
        out_BSEH = level.expert_BSEH.double()
        self._rows += len(out_BSEH)
        self._outputs += out_BSEH[:, :, 0].numel()
        self._zeros_E += (out_BSEH == 0).double().sum((0, 1, 3))
        self._sum_E += out_BSEH.sum((0, 1, 3))
        self._square_E += out_BSEH.square().sum((0, 1, 3))
        self._alive_EH |= (out_BSEH != 0).any(0).any(0)
        weight_BGE = level.weight_BTE.double()
        # Gates that add a residual have weights of another sum.
        weight_BGE = weight_BGE / weight_BGE.sum(-1, keepdim=True).clamp(min=_TINY)
        self._weight_GE += weight_BGE.sum(0)
        self._seen_GE |= (weight_BGE > 0).any(0)
        self._entropy_G += torch.special.entr(weight_BGE).sum((0, 2))
        self._gradient_TE += squares_TE.double()

    def groups(self, t: int) -> frozenset[str]:
        """Groups whose experts the gate of task ``t`` sees: those it belongs to."""
        return frozenset(
            owner
            for g, gate in enumerate(self._gates)
            for e, owner in enumerate(self._owners)
            if gate == f"{_TASK}{t}"
            and owner.startswith(_GROUP)
            and bool(self._seen_GE[g, e])
        )

    def health(self, groups: Sequence[frozenset[str]]) -> LevelHealth:
        """Sum up.

        Args:
            groups: Of each task; those of all levels together.
        """
        shares_TE = self._shares_TE()
        return LevelHealth(
            name=self._name,
            experts=self._experts(),
            gates=tuple(self._gate(g) for g in range(len(self._gates))),
            gradients={
                task: tuple(shares_TE[t].tolist())
                for t, task in enumerate(self._tasks)
                if float(shares_TE[t].sum()) > 0
            },
            own_share=self._own(shares_TE, groups),
            fair_share=self._own(torch.ones_like(shares_TE), groups),
        )

    def _experts(self) -> tuple[ExpertHealth, ...]:
        mean_E = self._sum_E / self._outputs
        variance_E = self._square_E / self._outputs - mean_E.square()
        scales = variance_E.clamp(min=0).sqrt().tolist()
        experts = []
        for e, owner in enumerate(self._owners):
            peers = [scale for i, scale in enumerate(scales) if i != e]
            median = statistics.median(peers) if peers else 0.0
            # A shared gate feeds the next level: all tasks are behind it.
            readers = [
                g
                for g, gate in enumerate(self._gates)
                if gate != _SHARED and self._seen_GE[g, e]
            ]
            experts.append(
                ExpertHealth(
                    name=self._expert_name(e),
                    owner=self._title(owner),
                    zero_share=float(self._zeros_E[e]) / self._outputs,
                    dead_units=1.0 - float(self._alive_EH[e].double().mean()),
                    scale=scales[e],
                    relative_scale=scales[e] / median if median > 0 else None,
                    readers=tuple(self._title(self._gates[g]) for g in readers),
                    users=tuple(
                        self._title(self._gates[g])
                        for g in readers
                        if self._mean_weight(g, e) >= USED_SHARE / self._visible(g)
                    ),
                )
            )
        return tuple(experts)

    def _gate(self, g: int) -> GateHealth:
        visible = self._visible(g)
        entropy = float(self._entropy_G[g]) / self._rows
        return GateHealth(
            reader=self._title(self._gates[g]),
            visible=visible,
            weights=tuple(self._mean_weight(g, e) for e in range(len(self._owners))),
            entropy=entropy / math.log(visible) if visible > 1 else None,
        )

    def _shares_TE(self) -> Float[Tensor, "tasks experts"]:
        norm_TE = self._gradient_TE.sqrt()
        return norm_TE / norm_TE.sum(1, keepdim=True).clamp(min=_TINY)

    def _own(
        self,
        amount_TE: Float[Tensor, "tasks experts"],
        groups: Sequence[frozenset[str]],
    ) -> dict[str, float]:
        """Give what a task's own experts have of its amount, as against shared ones."""
        parts = {}
        shared_E = torch.tensor([owner == _SHARED for owner in self._owners])
        for t, task in enumerate(self._tasks):
            mine = groups[t] | {f"{_TASK}{t}"}
            own_E = torch.tensor([owner in mine for owner in self._owners])
            reached_E = (own_E | shared_E) & (self._gradient_TE[t] > 0)
            if bool(own_E.any() and shared_E.any() and reached_E.any()):
                own = float(amount_TE[t][own_E].sum())
                parts[task] = own / (own + float(amount_TE[t][shared_E].sum()))
        return parts

    def _visible(self, g: int) -> int:
        return max(int(self._seen_GE[g].sum()), 1)

    def _mean_weight(self, g: int, e: int) -> float:
        return float(self._weight_GE[g, e]) / self._rows

    def _expert_name(self, e: int) -> str:
        owner = self._owners[e]
        title = self._title(owner)
        if self._owners.count(owner) == 1:
            return title
        return f"{title} {self._owners[: e + 1].count(owner)}"

    def _title(self, name: str) -> str:
        if name.startswith(_TASK):
            return self._tasks[int(name.removeprefix(_TASK))]
        if name.startswith(_GROUP):
            return f"group {name.removeprefix(_GROUP)}"
        return name
