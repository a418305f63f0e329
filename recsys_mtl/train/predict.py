"""A network's predictions over a whole split."""

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import nn

from recsys_mtl.data.reader import FeatureReader
from recsys_mtl.model.network import Network

__all__ = ["predict"]

_Predictions = Float[np.ndarray, "rows tasks"]


@torch.no_grad()
def predict(
    network: nn.Module, reader: FeatureReader, *, device: torch.device | None = None
) -> tuple[_Predictions, _Predictions]:
    """Predict all rows of a reader that reads in order.

    With several workers, each predicts its share and all get the whole.

    Args:
        network: A ``Network``, or one spread by ``shard``.
        reader: Must not mix rows.
        device: Where the network lies; the CPU if left out.

    Returns:
        Predictions and labels by row, in file order, and task; a label is NaN where
        the task has none.
    """
    core = network if isinstance(network, Network) else network.module
    assert isinstance(core, Network)
    training = network.training
    network.eval()
    predictions, labels = [], []
    for batch in reader.epoch(0):
        on_device = batch if device is None else batch.to(device)
        predictions.append(
            core.predict(network(on_device).logits).float().cpu().numpy()
        )
        assert batch.label_BT is not None, "the reader reads no tasks"
        labels.append(batch.label_BT.numpy())
    network.train(training)
    mine = np.concatenate(predictions), np.concatenate(labels)
    if reader.world == 1:
        return mine
    shares: list[tuple[np.ndarray, np.ndarray]] = [mine] * reader.world
    dist.all_gather_object(shares, mine)
    prediction_BT, label_BT = (
        reader.merge(list(part)) for part in zip(*shares, strict=True)
    )
    return prediction_BT, label_BT
