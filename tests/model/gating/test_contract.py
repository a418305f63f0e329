"""Promises every gating keeps; a new gating is one line in GATINGS."""

import pytest
import torch

from recsys_mtl.model.gating import PLE, Direct, ExpertCounts, HoME, MMoE, SharedBottom

B, D, T = 5, 4, 2
GATINGS = [
    Direct(D, num_tasks=T),
    SharedBottom(D, (6, 8), num_tasks=T),
    MMoE(D, (6, 8), num_experts=3, num_tasks=T),
    MMoE(D, (8,), num_experts=1, num_tasks=T),
    PLE(D, ((6, 8),), num_tasks=T, num_specific=1, num_shared=2),
    PLE(D, ((6,), (8,)), num_tasks=T, num_specific=2, num_shared=1),
    PLE(D, ((6,), (8,)), num_tasks=T, num_specific=2, num_shared=0),
    HoME(
        D,
        ((6, 5), (8,)),
        groups={"a": (1,), "b": (0,)},
        counts=ExpertCounts(2, 1, 1, 1, 1),
        rank=2,
        num_lora=2,
    ),
    HoME(
        D,
        ((6,), (8,)),
        groups={"all": (0, 1)},
        counts=ExpertCounts(1, 1, 1, 1, 1),
        rank=1,
        num_lora=1,
    ),
]


@pytest.fixture(params=GATINGS, ids=lambda gating: type(gating).__name__)
def gating(request):
    return request.param


def test_a_shared_input_equals_the_same_input_per_task(gating):
    x_B1D = torch.randn(B, 1, D)
    torch.testing.assert_close(gating(x_B1D), gating(x_B1D.repeat(1, T, 1)))


@pytest.mark.parametrize("sharing", [1, T])
@pytest.mark.parametrize("rows", [0, 1, B])
def test_any_number_of_rows_keeps_its_axes(gating, rows, sharing):
    assert gating(torch.randn(rows, sharing, D)).shape == (rows, T, gating.out_dim)


def test_rows_do_not_see_each_other_once_trained(gating):
    gating.eval()
    x_B1D = torch.randn(B, 1, D)
    torch.testing.assert_close(gating(x_B1D)[2:3], gating(x_B1D[2:3]))


@pytest.mark.parametrize("sharing", [1, T])
def test_a_trace_says_what_the_output_is_made_of(gating, sharing):
    x_BSD = torch.randn(B, sharing, D)
    trace = gating.trace(x_BSD)
    assert trace.hidden_BTH.equal(gating(x_BSD))
    for level in trace.levels:
        num_experts = len(level.experts)
        assert level.weight_BTE.shape == (B, len(level.gates), num_experts)
        assert level.expert_BSEH.shape[::2] == (B, num_experts)
        assert (level.weight_BTE >= 0).all()


def test_bf16_products_give_nearly_the_same(gating):
    gating.eval()
    x_B1D = torch.randn(B, 1, D)
    with torch.autocast("cpu", torch.bfloat16):
        hidden_BTH = gating(x_B1D)
    torch.testing.assert_close(hidden_BTH.float(), gating(x_B1D), rtol=0.05, atol=0.05)
