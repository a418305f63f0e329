"""How tasks share experts."""

from recsys_mtl.model.gating._base import AbstractGating
from recsys_mtl.model.gating.mmoe import MMoE
from recsys_mtl.model.gating.shared_bottom import SharedBottom

__all__ = ["AbstractGating", "MMoE", "SharedBottom"]
