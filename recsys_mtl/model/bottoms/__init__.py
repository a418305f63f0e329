"""What each task reads of the embedded row."""

from recsys_mtl.model.bottoms._base import AbstractBottom
from recsys_mtl.model.bottoms.flat import FlatBottom

__all__ = ["AbstractBottom", "FlatBottom"]
