"""The stages wired: the file to read first."""

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recsys_mtl.data.batch import Batch
from recsys_mtl.model.bottoms import AbstractBottom
from recsys_mtl.model.chains import AbstractChain, Logits
from recsys_mtl.model.embeddings import BatchEmbedding, EventSequence
from recsys_mtl.model.gating import AbstractGating, Direct, GateLevel
from recsys_mtl.model.heads import AbstractHead, BinaryHead
from recsys_mtl.model.split_rows import Rows, SplitRows, whole
from recsys_mtl.model.towers import AbstractTower

__all__ = ["Network", "Output", "Trunk"]


class Output(NamedTuple):
    """What a network says of a batch.

    Attributes:
        logits: For each task ``(batch, its logits)``, float32.
        penalty: What the embeddings and the chain add to the loss; 0 for nothing.
    """

    logits: Logits
    penalty: Float[Tensor, ""]


@final
class Trunk(nn.Module):
    """Bottom, gating, chain and towers: everything dense.

    ``torch.export`` takes it with any number of rows.

    Shape:
        - fields_BFD, dense_BM, sequences, contexts: as in ``Embedded``
        - return: for each task float32 ``(batch, its logits)``
    """

    def __init__(
        self,
        bottom: AbstractBottom,
        gating: AbstractGating,
        chain: AbstractChain,
        tower: AbstractTower,
    ) -> None:
        super().__init__()
        self.bottom = bottom
        self.gating = gating
        self.chain = chain
        self.tower = tower

    def forward(
        self,
        fields_BFD: Float[Tensor, "batch fields dim"],
        dense_BM: Float[Tensor, "batch dense"],
        sequences: tuple[EventSequence, ...] = (),
        contexts: tuple[Float[Tensor, "batch _ _"], ...] = (),
    ) -> Logits:
        return self.trace(fields_BFD, dense_BM, sequences, contexts)[0]

    def trace(
        self,
        fields_BFD: Float[Tensor, "batch fields dim"],
        dense_BM: Float[Tensor, "batch dense"],
        sequences: tuple[EventSequence, ...] = (),
        contexts: tuple[Float[Tensor, "batch _ _"], ...] = (),
    ) -> tuple[Logits, tuple[GateLevel, ...]]:
        """Give the logits, and show how experts were mixed for them."""
        return self.after_bottom(self.bottom(fields_BFD, dense_BM, sequences), contexts)

    def after_bottom(
        self, x_BSD: Rows, contexts: tuple[Float[Tensor, "batch _ _"], ...] = ()
    ) -> tuple[Logits, tuple[GateLevel, ...]]:
        """Go on from what a bottom gives."""
        if self.chain.transfers and isinstance(self.gating, Direct):
            x_BSD = whole(x_BSD)  # else a chain would get to see split rows
        h_BTH, levels = self.gating.trace(x_BSD)
        if not isinstance(h_BTH, SplitRows):
            h_BTH = self.chain.transfer(h_BTH)
        logits = self.tower(h_BTH, contexts)
        composed = self.chain.compose(tuple(logits_BC.float() for logits_BC in logits))
        return composed, levels


@final
class Network(nn.Module):
    """Scores a batch for all tasks.

    Precision is the caller's: ``torch.autocast`` around a call makes the products of
    the trunk and of the attention run in bf16. Lookups are no products, so embeddings
    stay float32, and logits come back as float32.

    Shape:
        - batch: B rows
        - return: logits for each task ``(batch, its logits)``, and a penalty
    """

    def __init__(
        self, embedding: BatchEmbedding, trunk: Trunk, heads: tuple[AbstractHead, ...]
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.trunk = trunk
        self.heads = heads

    def forward(self, batch: Batch) -> Output:
        *embedded, auxiliary = self.embedding(batch)
        logits: Logits = self.trunk(*embedded)
        return Output(logits, auxiliary + self.trunk.chain.penalty(logits))

    def loss_T(
        self,
        logits: Logits,
        label_BT: Float[Tensor, "batch tasks"],
        weight_BT: Float[Tensor, "batch tasks"] | None = None,
    ) -> tuple[Float[Tensor, " tasks"], Float[Tensor, " tasks"]]:
        """Average each task's loss over the rows that have its label.

        Args:
            logits: As in ``Output``.
            label_BT: Labels; NaN where a row has none, which then gives no gradient.
            weight_BT: Row weights; all 1 if left out.

        Returns:
            Weighted mean loss of each task, 0 without labels, and the sum of weights
            of its labels: their number, if there are no weights.
        """
        known_BT = ~label_BT.isnan()
        # Masked before the loss, not after: 0 * NaN is NaN in the backward pass.
        label_TB = label_BT.where(known_BT, 0.0).unbind(1)
        heads = zip(self.heads, logits, label_TB, strict=True)
        loss_BT = torch.stack([h.loss(x_BC, y_B) for h, x_BC, y_B in heads], dim=1)
        mass_BT = known_BT.float() if weight_BT is None else weight_BT * known_BT
        mass_T = mass_BT.sum(0)
        # Weights may add up to any small number; without any, the sum above it is 0.
        divisor_T = mass_T.where(mass_T > 0, 1.0)
        return (loss_BT.where(known_BT, 0.0) * mass_BT).sum(0) / divisor_T, mass_T

    def predict(self, logits: Logits) -> Float[Tensor, "batch tasks"]:
        """Turn logits into expected labels, in label units."""
        if all(isinstance(head, BinaryHead) for head in self.heads):
            # All at once: scoring a few rows is little more than the calls it takes.
            return torch.cat(logits, dim=1).sigmoid()
        heads = zip(self.heads, logits, strict=True)
        return torch.stack([head.predict(x_BC) for head, x_BC in heads], dim=1)

    def curves(self, logits: Logits) -> tuple[Float[Tensor, "batch _"], ...]:
        """For each task the probability that its label is above its head's points."""
        heads = zip(self.heads, logits, strict=True)
        return tuple(head.curve(x_BC) for head, x_BC in heads)

    def details(self, logits: Logits) -> tuple[dict[str, Float[Tensor, " batch"]], ...]:
        """For each task what there is to tell beside the prediction, by name."""
        heads = zip(self.heads, logits, strict=True)
        return tuple(head.details(x_BC) for head, x_BC in heads)

    @property
    def detail_names(self) -> tuple[tuple[str, ...], ...]:
        """For each task the names in ``details``, which no batch changes."""
        logits = tuple(torch.zeros(1, head.num_logits) for head in self.heads)
        return tuple(tuple(details) for details in self.details(logits))
