"""Gating specs -> gatings."""

from typing import assert_never

from recsys_mtl.config.gating import (
    CGCSpec,
    DirectSpec,
    GatingSpec,
    HoMESpec,
    MMoESpec,
    PLESpec,
    SharedBottomSpec,
)
from recsys_mtl.model.gating import (
    PLE,
    AbstractGating,
    Direct,
    ExpertCounts,
    HoME,
    MMoE,
    SharedBottom,
)

__all__ = ["build_gating"]


def build_gating(
    spec: GatingSpec, *, dim: int, tasks: tuple[str, ...]
) -> AbstractGating:
    """Build the gating that ``spec`` names.

    Args:
        spec: Which, and how large.
        dim: Width of its input.
        tasks: Names, in order; groups of tasks refer to them.
    """
    num_tasks = len(tasks)
    match spec:
        case DirectSpec():
            return Direct(dim, num_tasks=num_tasks)
        case SharedBottomSpec(hidden=hidden, dropout=dropout):
            return SharedBottom(dim, hidden, num_tasks=num_tasks, dropout=dropout)
        case MMoESpec(hidden=hidden, num_experts=num_experts, dropout=dropout):
            return MMoE(
                dim,
                hidden,
                num_experts=num_experts,
                num_tasks=num_tasks,
                dropout=dropout,
            )
        case CGCSpec() | PLESpec():
            return PLE(
                dim,
                spec.levels if isinstance(spec, PLESpec) else (spec.hidden,),
                num_tasks=num_tasks,
                num_specific=spec.num_specific,
                num_shared=spec.num_shared,
                dropout=spec.dropout,
            )
        case HoMESpec(levels=levels, dropout=dropout):
            return HoME(
                dim,
                levels,
                groups={
                    name: tuple(map(tasks.index, members))
                    for name, members in (spec.groups or {"all": tasks}).items()
                },
                counts=ExpertCounts(
                    meta_shared=spec.num_meta_shared,
                    meta_group=spec.num_meta_group,
                    task_shared=spec.num_task_shared,
                    task_group=spec.num_task_group,
                    task_specific=spec.num_task_specific,
                ),
                rank=spec.lora_rank,
                num_lora=spec.num_lora,
                dropout=dropout,
            )
        case _:
            assert_never(spec)
