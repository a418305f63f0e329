"""Embedding tables by numbers, and the TorchRec collections that hold them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torchrec import EmbeddingBagCollection, EmbeddingCollection
from torchrec.modules.embedding_configs import (
    EmbeddingBagConfig,
    EmbeddingConfig,
    PoolingType,
)

__all__ = ["Table", "pooled_collection", "sequence_collection"]


@dataclass(frozen=True)
class Table:
    """Rows of one embedding table and the columns whose ids select them.

    Attributes:
        name: Part of the state-dict name; must not be a name that ``nn.Module`` has.
        num_rows: Every id is below it.
        columns: Encoded columns that read the table.
    """

    name: str
    num_rows: int
    columns: tuple[str, ...]


def pooled_collection(
    tables: Sequence[Table], *, dim: int, init_std: float, device: torch.device
) -> EmbeddingBagCollection:
    """Hold tables that give one vector a cell: the mean over its ids, 0 without."""
    return EmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(
                name=table.name,
                embedding_dim=dim,
                num_embeddings=table.num_rows,
                feature_names=list(table.columns),
                pooling=PoolingType.MEAN,
                init_fn=_normal(init_std),
            )
            for table in tables
        ],
        device=device,
    )


def sequence_collection(
    tables: Sequence[Table], *, dim: int, init_std: float, device: torch.device
) -> EmbeddingCollection:
    """Hold tables that give one vector an id."""
    return EmbeddingCollection(
        tables=[
            EmbeddingConfig(
                name=table.name,
                embedding_dim=dim,
                num_embeddings=table.num_rows,
                feature_names=list(table.columns),
                init_fn=_normal(init_std),
            )
            for table in tables
        ],
        device=device,
    )


def _normal(std: float) -> Callable[[Tensor], Tensor]:
    return partial(nn.init.normal_, std=std)
