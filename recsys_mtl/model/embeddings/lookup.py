"""What collections give, sharded or not, in the order that was asked for."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torchrec import JaggedTensor, KeyedTensor
from torchrec.distributed.types import LazyAwaitable

__all__ = ["arrived", "single_events", "stacked"]

_LookedUp = TypeVar("_LookedUp")


def arrived(looked_up: _LookedUp | LazyAwaitable[_LookedUp]) -> _LookedUp:
    """Wait for what a sharded collection promised; an unsharded one has it at once."""
    if isinstance(looked_up, LazyAwaitable):
        waited: _LookedUp = looked_up.wait()
        return waited
    return looked_up


def stacked(
    pooled: KeyedTensor, columns: list[str], dim: int
) -> Float[Tensor, "batch columns dim"]:
    """Give one vector a column; a sharding plan groups tables its own way.

    Args:
        pooled: What a pooled collection gave.
        columns: Its columns, in the order wanted.
        dim: Width of every vector.
    """
    fields_BFD: Tensor = pooled.values().view(-1, len(columns), dim)
    keys = pooled.keys()
    if keys != columns:
        return fields_BFD[:, [keys.index(column) for column in columns]]
    return fields_BFD


def single_events(
    vectors: Mapping[str, JaggedTensor], columns: tuple[str, ...], num_rows: int
) -> Float[Tensor, "batch columns dim"]:
    """Give one vector a column, of columns with exactly one id in a row.

    Args:
        vectors: For each column its vectors, one an id.
        columns: In the order wanted.
        num_rows: Rows of the batch.
    """
    candidates = [vectors[column].values() for column in columns]
    for column, vector_BD in zip(columns, candidates, strict=True):
        assert vector_BD.shape[0] == num_rows, f"{column}: not one id a row"
    return torch.stack(candidates, dim=1)
