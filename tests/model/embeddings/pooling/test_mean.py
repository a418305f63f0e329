import torch

from recsys_mtl.model.embeddings.pooling.mean import MeanPooling


def test_averages_each_rows_events():
    rows = [torch.randn(n, 2, 3) for n in (3, 1, 4)]
    length_B = torch.tensor([len(row) for row in rows], dtype=torch.int32)
    pooled_BKD = MeanPooling()(torch.cat(rows), length_B, torch.empty(3, 0, 3))
    torch.testing.assert_close(pooled_BKD, torch.stack([r.mean(0) for r in rows]))


def test_the_candidate_makes_no_difference():
    events_NKD, length_B = torch.randn(4, 2, 3), torch.tensor([1, 3])
    one, other = (
        MeanPooling()(events_NKD, length_B, torch.randn(2, 1, 3)) for _ in "ab"
    )
    assert one.equal(other)
