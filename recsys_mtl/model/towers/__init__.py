"""One network a task, from its hidden vector to its logits."""

from recsys_mtl.model.towers._base import AbstractTower
from recsys_mtl.model.towers.dcn_v2 import DCNV2Tower
from recsys_mtl.model.towers.final_mlp import FinalMLPTower, Selection, Stream
from recsys_mtl.model.towers.mlp import MLPTower
from recsys_mtl.model.towers.wide_deep import WideDeepTower

__all__ = [
    "AbstractTower",
    "DCNV2Tower",
    "FinalMLPTower",
    "MLPTower",
    "Selection",
    "Stream",
    "WideDeepTower",
]
