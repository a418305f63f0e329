"""One step: forward, loss, backward, update."""

from typing import final

import torch
import torch.autograd
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torchrec.distributed.model_parallel import DistributedModelParallel

from recsys_mtl.config.task import TaskSpec
from recsys_mtl.data.batch import Batch
from recsys_mtl.errors import DataError
from recsys_mtl.model.network import Network
from recsys_mtl.train.optimizer import Optimizer

__all__ = ["Stepper"]


@final
class Stepper:
    r"""Minimises :math:`\sum_t w_t \bar\ell_t + p`, each mean over all workers' labels.

    The penalty p of embeddings and chain is each worker's own.

    Args:
        model: The sharded network.
        optimizer: Of all its parameters.
        tasks: Names for messages, and weights.
        bf16: Whether the trunk's products run in bf16.
        seed: With rank and step it seeds dropout, so a run that continues from a
            position draws what it would have drawn.
    """

    def __init__(
        self,
        model: DistributedModelParallel,
        optimizer: Optimizer,
        *,
        tasks: tuple[TaskSpec, ...],
        bf16: bool,
        seed: int,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        network = model.module
        assert isinstance(network, Network)
        self._network = network
        self._tasks = tuple(task.name for task in tasks)
        device = model.device
        self._weight_T = torch.tensor([task.weight for task in tasks], device=device)
        self._bf16 = bf16
        self._seed = seed
        self._world = dist.get_world_size()

    def __call__(self, batch: Batch, step: int) -> tuple[list[float], list[float]]:
        """Take step number ``step``.

        Returns:
            For each task the weighted sum of this worker's losses, and the sum of the
            row weights: without row weights, the number of its labels.

        Raises:
            DataError: A loss is not finite.
        """
        assert batch.label_BT is not None
        torch.manual_seed(hash((self._seed, dist.get_rank(), step)))
        self._optimizer.zero_grad()
        with torch.autocast(self._model.device.type, torch.bfloat16, self._bf16):
            logits, penalty = self._model(batch)
        loss_T, mass_T = self._network.loss_T(logits, batch.label_BT, batch.weight_BT)
        self._check(loss_T, step)
        weight_T = self._weight_T
        if self._world > 1:
            weight_T = weight_T * self._share(mass_T)
        torch.autograd.backward((loss_T * weight_T).sum() + penalty)
        self._optimizer.step()
        sum_T = loss_T.detach() * mass_T
        return sum_T.tolist(), mass_T.tolist()

    def _share(self, mass_T: Tensor) -> Float[Tensor, " tasks"]:
        """Make the workers' mean of means the mean over all their labels."""
        total_T = mass_T.clone()
        dist.all_reduce(total_T)
        return mass_T * self._world / total_T.where(total_T > 0, 1.0)

    def _check(self, loss_T: Tensor, step: int) -> None:
        losses = loss_T.tolist()
        for name, loss in zip(self._tasks, losses, strict=True):
            if not abs(loss) < float("inf"):
                raise DataError(
                    f"the loss of task {name!r} must be finite, got {loss} in step "
                    f"{step + 1}; try a lower train.optimizer.learning_rate or "
                    "train.embedding_optimizer.learning_rate, train.clip_norm, or "
                    "train.precision fp32, and look at the range of numeric features "
                    "and labels"
                )
