"""What every head promises."""

import abc

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["AbstractHead"]


class AbstractHead(abc.ABC):
    """Owns everything about one kind of label: width, start, loss and prediction.

    A head is stateless about the batch: it sees one task's logits and labels. It has
    no parameters, so it is no module: those that lead to its logits are the tower's.
    """

    num_logits: int

    @property
    @abc.abstractmethod
    def initial_logits(self) -> tuple[float, ...]:
        """Logits that fit the training labels best if nothing is known of a row."""

    @abc.abstractmethod
    def loss(
        self,
        logits_BC: Float[Tensor, "batch logits"],
        label_B: Float[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        """Loss per row, unreduced; finite for every finite logit."""

    @abc.abstractmethod
    def predict(
        self, logits_BC: Float[Tensor, "batch logits"]
    ) -> Float[Tensor, " batch"]:
        """Expected label per row, in label units."""

    @property
    def points(self) -> tuple[float, ...]:
        """Labels at which ``curve`` is known, rising; none for most kinds."""
        return ()

    def curve(
        self, logits_BC: Float[Tensor, "batch logits"]
    ) -> Float[Tensor, "batch points"]:
        """Probability that the label is above each of ``points``."""
        return torch.empty((len(logits_BC), 0), device=logits_BC.device)

    def details(
        self, logits_BC: Float[Tensor, "batch logits"]
    ) -> dict[str, Float[Tensor, " batch"]]:
        """What there is to tell beside the prediction, by name; for most kinds nothing.

        Names do not depend on the logits.
        """
        del logits_BC
        return {}
