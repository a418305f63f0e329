"""Promises every pooling keeps; a new pooling is one line in POOLINGS."""

import pytest
import torch

from recsys_mtl.model.embeddings.pooling import (
    Bert4Rec,
    EventEncoder,
    MeanPooling,
    TargetAttention,
)

D, K, Q = 4, 3, 2
UNORDERED = [
    MeanPooling(),
    TargetAttention(D, num_fields=K, num_matched=Q, hidden=(6,)),
]
POOLINGS = [
    *UNORDERED,
    Bert4Rec(EventEncoder(K * D, length=4)),
    Bert4Rec(EventEncoder(K * D, length=4, num_heads=3), pool="last"),
    Bert4Rec(EventEncoder(K * D, length=4), pool="target", query_width=Q * D),
]


@pytest.fixture(params=POOLINGS, ids=lambda pooling: type(pooling).__name__)
def pooling(request):
    return request.param


def draw(lengths):
    length_B = torch.tensor(lengths, dtype=torch.int32)
    return torch.randn(sum(lengths), K, D), length_B, torch.randn(len(lengths), Q, D)


def test_a_row_without_events_gives_zeros(pooling):
    pooled_BKD = pooling(*draw([0, 2, 0]))
    assert pooled_BKD[[0, 2]].abs().sum() == 0
    assert pooled_BKD[1].abs().sum() > 0


def test_a_batch_without_any_event_gives_zeros_and_no_gradient(pooling):
    events_NKD, length_B, query_BQD = draw([0, 0])
    pooled_BKD = pooling(events_NKD.requires_grad_(), length_B, query_BQD)
    assert pooled_BKD.equal(torch.zeros(2, K, D))
    pooled_BKD.sum().backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in pooling.parameters())
    pooling.zero_grad()


def test_rows_do_not_see_each_other(pooling):
    events_NKD, length_B, query_BQD = draw([2, 3, 1])
    together = pooling(events_NKD, length_B, query_BQD)
    alone = pooling(events_NKD[2:5], length_B[1:2], query_BQD[1:2])
    torch.testing.assert_close(together[1:2], alone)


def test_under_autocast_pooled_events_stay_float32(pooling):
    inputs = draw([2, 0, 3])
    exact_BKD = pooling(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        pooled_BKD = pooling(*inputs)
    assert pooled_BKD.dtype == torch.float32
    torch.testing.assert_close(pooled_BKD, exact_BKD, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("pooling", UNORDERED, ids=lambda p: type(p).__name__)
def test_the_order_of_events_does_not_matter(pooling):
    events_NKD, length_B, query_BQD = draw([4])
    torch.testing.assert_close(
        pooling(events_NKD.flip(0), length_B, query_BQD),
        pooling(events_NKD, length_B, query_BQD),
    )
