"""Tower specs -> towers."""

from recsys_mtl.config.tower import MLPTowerSpec, TowerSpec
from recsys_mtl.model.towers import AbstractTower, MLPTower

__all__ = ["build_tower"]


def build_tower(
    spec: TowerSpec, *, dim: int, num_logits: tuple[int, ...]
) -> AbstractTower:
    """Build the towers that ``spec`` names.

    Args:
        spec: Which, and how large.
        dim: Width of a task's hidden vector.
        num_logits: Logits of each task.
    """
    match spec:
        case MLPTowerSpec(hidden=hidden, dropout=dropout):
            return MLPTower(dim, hidden, num_logits=num_logits, dropout=dropout)
