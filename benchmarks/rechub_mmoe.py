"""torch-rechub's MMoE, for rows as ``criteo_shaped.py`` makes them.

Needs torch-rechub, and nothing of this library.
"""

from collections.abc import Iterable

from torch_rechub.basic.features import DenseFeature, SparseFeature
from torch_rechub.models.multi_task import MMOE


def rechub_mmoe(names: Iterable[str]) -> MMOE:
    """Make the network.

    Args:
        names: Columns; those ``c0``, ``c1`` ... are ids, all others numbers.
    """
    features = [
        SparseFeature(name, vocab_size=100_000, embed_dim=16)
        if name.startswith("c")
        else DenseFeature(name)
        for name in names
    ]
    return MMOE(
        features,
        ["classification"] * 2,
        n_expert=4,
        expert_params={"dims": [256, 128]},
        tower_params_list=[{"dims": [64]}] * 2,
    )
