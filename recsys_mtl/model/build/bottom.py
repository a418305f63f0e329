"""Bottom specs -> bottoms."""

from recsys_mtl.config.bottom import BottomSpec, FlatSpec
from recsys_mtl.model.bottoms import AbstractBottom, FlatBottom

__all__ = ["build_bottom"]


def build_bottom(
    spec: BottomSpec, *, num_fields: int, dim: int, num_dense: int
) -> AbstractBottom:
    """Build the bottom that ``spec`` names."""
    match spec:
        case FlatSpec(dropout=dropout):
            return FlatBottom(
                num_fields=num_fields, dim=dim, num_dense=num_dense, dropout=dropout
            )
