"""Hierarchy of multi-gate experts (HoME)."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from recsys_mtl.model.experts import ExpertBank
from recsys_mtl.model.gating._base import (
    AbstractGating,
    GateLevel,
    GatingTrace,
    mix,
    task_gates,
)
from recsys_mtl.model.gating.feature_gate import FeatureGate
from recsys_mtl.model.gating.gate_bank import GateBank
from recsys_mtl.model.split_rows import Rows, whole

__all__ = ["ExpertCounts", "HoME"]


class ExpertCounts(NamedTuple):
    """How many experts there are.

    Attributes:
        meta_shared: Of all groups, at the first level.
        meta_group: Of each group, at the first level.
        task_shared: Of all tasks, at the second level.
        task_group: Of the tasks of each group, at the second level.
        task_specific: Of each task, at the second level.
    """

    meta_shared: int
    meta_group: int
    task_shared: int
    task_group: int
    task_specific: int


@final
class HoME(AbstractGating):
    r"""Mixes experts of groups of tasks, then experts of tasks.

    An expert is layers of :math:`\mathrm{SiLU}(\mathrm{BN}(W x))`. Each owner :math:`o`
    of experts (all, a group, a task) reads its own :math:`v_o = v \odot F_o(v)`, with
    the feature gate :math:`F_o` of ``FeatureGate``. A mixture is

    .. math::
        \sum_{e \in V_o} \mathrm{softmax}(W_o x)_e f_e + \sum_{e \in o} S_o(v_o)_e f_e

    where :math:`V_o` are the experts that it may see, and the self gate :math:`S_o` of
    its own ones is a softmax, or a sigmoid for a single one. At the meta level there
    is a mixture of all experts, shared, and one a group, of the shared experts and
    the group's; both gate by :math:`x = v_o`. At the task level there is a mixture a
    task, of shared experts, of those of its group and of its own, gated by the
    group's mixture and the shared one, side by side.

    Args:
        dim: Width of the input.
        hidden: For each of the two levels the widths of its experts' layers, in order.
        groups: For each group its tasks; every task is in one of them.
        counts: Numbers of experts.
        rank: Width between the two factors of a feature gate.
        num_lora: How many low-rank gates a feature gate mixes.
        dropout: Probability to drop a hidden unit while training.

    Shape:
        - x_BSD: ``(batch, 1 or tasks, dim)``
        - return: ``(batch, tasks, hidden[1][-1])``

    Deviations:
        The paper's equations were not at hand. From its abstract are normalised experts
        with Swish, the hierarchy mask, and feature and self gates; from three
        re-implementations the two levels, the order of layers, the low-rank feature
        gates and how self gates are added. The rest is our reading:

        - A feature gate mixes several low-rank gates by a softmax of a linear map.
        - At the task level the shared experts read the shared mixture, and the experts
          of a group and of its tasks that of the group, each through a feature gate
          of its own.
        - Feature gates start close to 1.
        - Where each task has its own input, the shared branch reads the mean over
          tasks, and that of a group the mean over its tasks.

    References:
        Wang et al., "HoME: Hierarchy of Multi-Gate Experts for Multi-Task Learning at
        Kuaishou", KDD 2025, arXiv:2408.05430.

    Example:
        >>> gating = HoME(
        ...     dim=4,
        ...     hidden=((8,), (6,)),
        ...     groups={"watch": (0,), "act": (1, 2)},
        ...     counts=ExpertCounts(2, 1, 1, 1, 1),
        ...     rank=2,
        ...     num_lora=2,
        ... )
        >>> gating(torch.randn(5, 1, 4)).shape
        torch.Size([5, 3, 6])
    """

    def __init__(
        self,
        dim: int,
        hidden: tuple[tuple[int, ...], tuple[int, ...]],
        *,
        groups: Mapping[str, tuple[int, ...]],
        counts: ExpertCounts,
        rank: int,
        num_lora: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.out_dim = hidden[1][-1]
        groups = {f"group:{name}": members for name, members in groups.items()}
        group_of = {t: name for name, members in groups.items() for t in members}
        tasks = task_gates(len(group_of))
        branches = ("shared", *groups)
        self.meta = _Level(
            "meta",
            hidden[0],
            feature_gate=FeatureGate(
                dim, num_readers=len(branches), rank=rank, num_lora=num_lora
            ),
            gate_dim=dim,
            owners={"shared": counts.meta_shared}
            | dict.fromkeys(groups, counts.meta_group),
            sees={"shared": branches} | {name: ("shared", name) for name in groups},
            dropout=dropout,
        )
        width = hidden[0][-1]
        num_readers = len(branches) + len(tasks)
        self.task = _Level(
            "task",
            hidden[1],
            feature_gate=FeatureGate(
                width, num_readers=num_readers, rank=rank, num_lora=num_lora
            ),
            gate_dim=2 * width,
            owners={"shared": counts.task_shared}
            | dict.fromkeys(groups, counts.task_group)
            | dict.fromkeys(tasks, counts.task_specific),
            sees={task: ("shared", group_of[t], task) for t, task in enumerate(tasks)},
            dropout=dropout,
        )
        readers = [range(len(tasks)), *groups.values()]
        mean_ST = torch.zeros(len(branches), len(tasks))
        for branch, members in enumerate(readers):
            mean_ST[branch, list(members)] = 1 / len(members)
        group_T = torch.tensor([branches.index(group_of[t]) for t in readers[0]])
        self.mean_ST: Tensor
        self.group_T: Tensor
        self.source_S: Tensor
        self.register_buffer("mean_ST", mean_ST, persistent=False)
        self.register_buffer("group_T", group_T, persistent=False)
        source_S = torch.cat([torch.arange(len(branches)), group_T])
        self.register_buffer("source_S", source_S, persistent=False)

    def trace(self, x_BSD: Rows) -> GatingTrace:
        x_BSD = whole(x_BSD)  # feature gates weigh every entry
        if x_BSD.shape[1] > 1:
            mean_SBD = torch.einsum("st,btd->sbd", self.mean_ST, x_BSD)
            x_BSD = mean_SBD.transpose(0, 1)
        meta: GateLevel = self.meta(x_BSD)
        z_BSH = mix(meta.weight_BTE, meta.expert_BSEH)
        group_BTH = z_BSH.index_select(1, self.group_T)
        both_BTX = torch.cat([group_BTH, z_BSH[:, :1].expand_as(group_BTH)], dim=2)
        # A copy with owners first, where products over owners want them.
        own_SBH = z_BSH.transpose(0, 1).index_select(0, self.source_S)
        task: GateLevel = self.task(own_SBH.transpose(0, 1), both_BTX)
        return GatingTrace(mix(task.weight_BTE, task.expert_BSEH), (meta, task))


@final
class _Level(nn.Module):
    """Experts of several owners, and mixtures that see some of them.

    The last owners are those with a mixture, in the same order.
    """

    def __init__(
        self,
        name: str,
        hidden: tuple[int, ...],
        *,
        feature_gate: FeatureGate,
        gate_dim: int,
        owners: Mapping[str, int],
        sees: Mapping[str, tuple[str, ...]],
        dropout: float,
    ) -> None:
        super().__init__()
        self.name = name
        self.names = tuple(sees)
        self.owners = tuple(itertools.chain(*([o] * n for o, n in owners.items())))
        self.feature_gate = feature_gate
        # Neighbours with equally many experts are computed together.
        runs = [(n, len(list(run))) for n, run in itertools.groupby(owners.values())]
        ends = itertools.accumulate(num_owners for _, num_owners in runs)
        self.spans = tuple(itertools.pairwise((0, *ends)))
        self.banks = nn.ModuleList(
            ExpertBank(
                feature_gate.dim,
                hidden,
                num_owners * num_experts,
                dropout=dropout,
                activation="silu",
                batch_norm=True,
                divided=True,
            )
            for num_experts, num_owners in runs
        )
        num_experts = len(self.owners)
        visible = tuple(self._places(seen) for seen in sees.values())
        own = tuple(self._places((name,)) for name in sees)
        self.gates = GateBank(gate_dim, visible, num_experts=num_experts)
        self.self_gates = GateBank(
            feature_gate.dim, own, num_experts=num_experts, sigmoid_of_one=True
        )

    def _places(self, owners: Sequence[str]) -> tuple[int, ...]:
        return tuple(e for e, owner in enumerate(self.owners) if owner in owners)

    def forward(self, x_BSD: Tensor, gate_BTD: Tensor | None = None) -> GateLevel:
        own_BSD: Tensor = self.feature_gate(x_BSD)
        outputs = [
            bank(own_BSD[:, start:end])
            for bank, (start, end) in zip(self.banks, self.spans, strict=True)
        ]
        # Of one bank nothing is copied.
        expert_B1EH = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
        num_owners = own_BSD.shape[1]
        own_BTD = own_BSD[:, num_owners - len(self.names) : num_owners]
        weight_BTE = self.gates(own_BTD if gate_BTD is None else gate_BTD)
        weight_BTE = weight_BTE + self.self_gates(own_BTD)
        return GateLevel(self.name, self.owners, self.names, weight_BTE, expert_B1EH)
