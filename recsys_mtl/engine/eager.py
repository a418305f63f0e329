"""The network as it is, in PyTorch."""

from typing import final

import torch

from recsys_mtl.data.request_batch import RequestBatch
from recsys_mtl.engine._base import AbstractEngine
from recsys_mtl.model.chains import Logits
from recsys_mtl.model.request_network import RequestNetwork

__all__ = ["EagerEngine"]


@final
class EagerEngine(AbstractEngine):
    """Runs every part in PyTorch: needs nothing but the weights.

    Args:
        network: Prepared for requests.
        bf16: Multiply in bf16; slow on a processor that does not have it.
    """

    kind = "eager"

    def __init__(self, network: RequestNetwork, *, bf16: bool = False) -> None:
        self._network = network
        self._bf16 = bf16

    def score(self, batch: RequestBatch) -> Logits:
        if not self._bf16:
            return self._network.score(batch)
        with torch.autocast("cpu", torch.bfloat16):
            return self._network.score(batch)
