"""Every optimizer of a run as one: fused tables, dense tables, and the rest."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper

from recsys_mtl.config.train import AdamEmbeddings, TrainSpec
from recsys_mtl.train.shard import local_tables

__all__ = ["Optimizer"]


class Optimizer:
    """Zeroes, clips and steps all parameters under one schedule.

    Tables of row-wise Adagrad are updated inside the backward pass; of them only the
    learning rate is set here. Dense tables are updated by Adam, everything else by
    AdamW.

    Args:
        model: The sharded network.
        spec: Learning rates, decay, clipping.
    """

    def __init__(self, model: DistributedModelParallel, spec: TrainSpec) -> None:
        self._clip_norm = spec.clip_norm
        self._table_l2 = 0.0
        tables = {id(weight) for weight in local_tables(model)}
        trained = {
            name: parameter
            for name, parameter in model.named_parameters()
            # A table that lies on another worker is an empty parameter here.
            if parameter.requires_grad and parameter.numel()
        }
        fused = set(model.fused_optimizer.params)
        dense = {
            n: p for n, p in trained.items() if n not in fused and id(p) not in tables
        }
        self._tables = {n: p for n, p in trained.items() if id(p) in tables}
        adamw = KeyedOptimizerWrapper(
            dense,
            lambda parameters: torch.optim.AdamW(
                parameters,
                lr=spec.optimizer.learning_rate,
                weight_decay=spec.optimizer.weight_decay,
                fused=True,
            ),
        )
        parts = [model.fused_optimizer, adamw]
        if isinstance(embeddings := spec.embedding_optimizer, AdamEmbeddings):
            self._table_l2 = embeddings.l2
            parts.append(
                KeyedOptimizerWrapper(
                    self._tables,
                    lambda parameters: torch.optim.Adam(
                        parameters, lr=embeddings.learning_rate, fused=True
                    ),
                )
            )
        self._lazy = parts[1:]
        self.keyed = CombinedOptimizer(parts)
        self._clipped: list[Tensor] = [*dense.values(), *self._tables.values()]
        self._base_rates = [group["lr"] for group in self.keyed.param_groups]

    def set_rates(self, factor: float, floor: float = 0.0) -> None:
        """Set each learning rate to ``factor`` times its start, ``floor`` at least.

        A rate that starts below the floor stays below it.
        """
        for group, base in zip(self.keyed.param_groups, self._base_rates, strict=True):
            group["lr"] = max(base * factor, min(base, floor))

    @property
    def rates(self) -> list[float]:
        """The learning rates as they are, fused tables first."""
        return [group["lr"] for group in self.keyed.param_groups]

    def zero_grad(self) -> None:
        """Forget gradients; also tells the fused kernel its learning rate."""
        self.keyed.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Update from the gradients at hand."""
        if self._table_l2:
            _add_decay(self._tables.values(), self._table_l2)
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self._clipped, self._clip_norm)
        self.keyed.step()

    def allocate(self) -> None:
        """Make the state that the first step would make, so that it can be loaded."""
        for part in self._lazy:
            part.init_state()
        self.zero_grad()


@torch.no_grad()
def _add_decay(weights: Iterable[Tensor], l2: float) -> None:
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        weight.grad.add_(weight, alpha=l2)
