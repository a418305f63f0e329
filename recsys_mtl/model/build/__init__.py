"""The only place that knows both specs and modules: one file a stage.

Takes specs and fitted sizes; gives modules. Must not know files or optimizers.
"""

from recsys_mtl.model.build.bottom import build_bottom
from recsys_mtl.model.build.chain import build_chain
from recsys_mtl.model.build.embedding import build_embedding
from recsys_mtl.model.build.gating import build_gating
from recsys_mtl.model.build.head import build_head
from recsys_mtl.model.build.history import build_pooling, lay_out_histories
from recsys_mtl.model.build.network import build_network
from recsys_mtl.model.build.tower import build_tower

__all__ = [
    "build_bottom",
    "build_chain",
    "build_embedding",
    "build_gating",
    "build_head",
    "build_network",
    "build_pooling",
    "build_tower",
    "lay_out_histories",
]
