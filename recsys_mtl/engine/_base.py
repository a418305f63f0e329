"""What every engine promises."""

import abc

from recsys_mtl.data.request_batch import RequestBatch
from recsys_mtl.model.chains import Logits

__all__ = ["AbstractEngine"]


class AbstractEngine(abc.ABC):
    """Scores candidates with the weights of one bundle. One thread at a time.

    Attributes:
        kind: Its name in recipes and model cards.
    """

    kind: str

    @abc.abstractmethod
    def score(self, batch: RequestBatch) -> Logits:
        """Give for each task ``(N, its logits)`` in float32, no candidates included.

        Equal to the network's logits on ``batch.joined()`` but for rounding, and what
        quantised tables or products in bf16 lose.
        """
