"""How a bundle's network is run when it serves.

Takes a ``RequestBatch``; gives logits. Must not know recipes, files of a bundle or
requests as people write them.
"""

from recsys_mtl.engine._base import AbstractEngine
from recsys_mtl.engine.eager import EagerEngine

__all__ = ["AbstractEngine", "EagerEngine"]
