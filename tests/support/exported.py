"""A trunk exported at any number of rows, compared with itself."""

import torch

from recsys_mtl.model.embeddings import EventSequence

__all__ = ["assert_export_equals_eager"]


@torch.no_grad()
def assert_export_equals_eager(network, batches) -> None:
    """Export on some rows; compare on one, on more, and without any event.

    Args:
        network: In any mode; left in evaluation mode.
        batches: Function (num_rows, seed, history_length) -> Batch.
    """
    network.eval()
    rows = torch.export.Dim("rows", min=1)
    embedded = network.embedding(batches(16))[:4]
    sequences = tuple(
        EventSequence(
            {0: torch.export.Dim(f"events{number}", min=0)}, {0: rows}, {0: rows}
        )
        for number in range(len(embedded[2]))
    )
    contexts = tuple({0: rows} for _ in embedded[3])
    program = torch.export.export(
        network.trunk,
        embedded,
        dynamic_shapes=({0: rows}, {0: rows}, sequences, contexts),
    )
    for num_rows, options in ((1, {}), (7, {}), (7, {"history_length": 0})):
        embedded = network.embedding(batches(num_rows, seed=1, **options))[:4]
        exported = program.module()(*embedded)
        for one, other in zip(exported, network.trunk(*embedded), strict=True):
            torch.testing.assert_close(one, other)
