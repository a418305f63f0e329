"""The five stages wired: the file to read first."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from recsys_mtl.data.batch import Batch
from recsys_mtl.model.bottoms import AbstractBottom
from recsys_mtl.model.embeddings import BatchEmbedding
from recsys_mtl.model.gating import AbstractGating
from recsys_mtl.model.heads import AbstractHead
from recsys_mtl.model.towers import AbstractTower

__all__ = ["Network", "Trunk"]

Logits = tuple[Float[Tensor, "batch _"], ...]
"""For each task ``logits_BC``."""


@final
class Trunk(nn.Module):
    """Bottom, gating and towers: everything dense, and exportable by ``torch.export``.

    Shape:
        - fields_BFD, dense_BM: as ``Embedded``
        - return: for each task float32 ``(batch, its logits)``
    """

    def __init__(
        self, bottom: AbstractBottom, gating: AbstractGating, tower: AbstractTower
    ) -> None:
        super().__init__()
        self.bottom = bottom
        self.gating = gating
        self.tower = tower

    def forward(
        self,
        fields_BFD: Float[Tensor, "batch fields dim"],
        dense_BM: Float[Tensor, "batch dense"],
    ) -> Logits:
        logits = self.tower(self.gating(self.bottom(fields_BFD, dense_BM)))
        return tuple(logits_BC.float() for logits_BC in logits)


@final
class Network(nn.Module):
    """Scores a batch for all tasks.

    Precision is the caller's: ``torch.autocast`` around a call makes the products of
    the trunk and of the attention run in bf16. Lookups are no products, so embeddings
    stay float32, and logits come back as float32.

    Shape:
        - batch: B rows
        - return: for each task ``(batch, its logits)``
    """

    def __init__(
        self, embedding: BatchEmbedding, trunk: Trunk, heads: tuple[AbstractHead, ...]
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.trunk = trunk
        self.heads = heads

    def forward(self, batch: Batch) -> Logits:
        logits: Logits = self.trunk(*self.embedding(batch))
        return logits

    def loss_T(
        self, logits: Logits, label_BT: Float[Tensor, "batch tasks"]
    ) -> tuple[Float[Tensor, " tasks"], Int[Tensor, " tasks"]]:
        """Average each task's loss over the rows that have its label.

        Args:
            logits: As ``forward`` gives them.
            label_BT: Labels; NaN where a row has none, which then gives no gradient.

        Returns:
            Mean loss of each task, 0 without labels, and the number of its labels.
        """
        known_BT = ~label_BT.isnan()
        # Masked before the loss, not after: 0 * NaN is NaN in the backward pass.
        label_TB = label_BT.where(known_BT, 0.0).unbind(1)
        heads = zip(self.heads, logits, label_TB, strict=True)
        loss_BT = torch.stack([h.loss(x_BC, y_B) for h, x_BC, y_B in heads], dim=1)
        count_T = known_BT.sum(0)
        return loss_BT.where(known_BT, 0.0).sum(0) / count_T.clamp(min=1), count_T

    def predict(self, logits: Logits) -> Float[Tensor, "batch tasks"]:
        """Turn logits into expected labels, in label units."""
        heads = zip(self.heads, logits, strict=True)
        return torch.stack([head.predict(x_BC) for head, x_BC in heads], dim=1)
