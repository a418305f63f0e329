"""How tasks share experts."""

from recsys_mtl.model.gating._base import AbstractGating, GateLevel, GatingTrace
from recsys_mtl.model.gating.direct import Direct
from recsys_mtl.model.gating.home import ExpertCounts, HoME
from recsys_mtl.model.gating.mmoe import MMoE
from recsys_mtl.model.gating.ple import PLE
from recsys_mtl.model.gating.shared_bottom import SharedBottom

__all__ = [
    "PLE",
    "AbstractGating",
    "Direct",
    "ExpertCounts",
    "GateLevel",
    "GatingTrace",
    "HoME",
    "MMoE",
    "SharedBottom",
]
