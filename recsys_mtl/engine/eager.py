"""The network as it is, in PyTorch."""

from typing import final

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
    """

    kind = "eager"

    def __init__(self, network: RequestNetwork) -> None:
        self._network = network

    def score(self, batch: RequestBatch) -> Logits:
        return self._network.score(batch)
