"""Gating specs -> gatings."""

from typing import assert_never

from recsys_mtl.config.gating import DirectSpec, GatingSpec, MMoESpec, SharedBottomSpec
from recsys_mtl.model.gating import AbstractGating, Direct, MMoE, SharedBottom

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
        case _:
            assert_never(spec)
