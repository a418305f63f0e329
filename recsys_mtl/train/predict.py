"""A network's predictions over a whole split."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import nn

from recsys_mtl.data.reader import FeatureReader
from recsys_mtl.evaluate.curve import Curve
from recsys_mtl.model.network import Network

__all__ = ["Predictions", "predict"]


class Predictions(NamedTuple):
    """All rows of a split, in file order.

    Attributes:
        prediction_BT: Expected labels by row and task.
        label_BT: Labels; NaN where the task has none.
        curves: By name, of the tasks whose heads have any.
    """

    prediction_BT: Float[np.ndarray, "rows tasks"]
    label_BT: Float[np.ndarray, "rows tasks"]
    curves: Mapping[str, Curve]


@torch.no_grad()
def predict(
    network: nn.Module, reader: FeatureReader, *, device: torch.device | None = None
) -> Predictions:
    """Predict all rows of a reader that reads in order.

    With several workers, each predicts its share and all get the whole.

    Args:
        network: A ``Network``, or one spread by ``shard``.
        reader: Must not mix rows.
        device: Where the network lies; the CPU if left out.
    """
    core = network if isinstance(network, Network) else network.module
    assert isinstance(core, Network)
    training = network.training
    network.eval()
    batches = []
    for batch in reader.epoch(0):
        on_device = batch if device is None else batch.to(device)
        logits = network(on_device).logits
        assert batch.label_BT is not None, "the reader reads no tasks"
        made = (core.predict(logits), batch.label_BT, *core.curves(logits))
        batches.append([part.float().cpu().numpy() for part in made])
    network.train(training)
    mine = [np.concatenate(part) for part in zip(*batches, strict=True)]
    if reader.world > 1:
        shares: list[list[np.ndarray]] = [mine] * reader.world
        dist.all_gather_object(shares, mine)
        mine = [reader.merge(list(part)) for part in zip(*shares, strict=True)]
    prediction_BT, label_BT, *above = mine
    curves = {
        task: Curve(head.points, above_BP)
        for task, head, above_BP in zip(reader.tasks, core.heads, above, strict=True)
        if head.points
    }
    return Predictions(prediction_BT, label_BT, curves)
