"""One network a task, from its hidden vector to its logits."""

from recsys_mtl.model.towers._base import AbstractTower
from recsys_mtl.model.towers.mlp import MLPTower

__all__ = ["AbstractTower", "MLPTower"]
