"""Promises every tower keeps; a new tower is one line in TOWERS."""

import pytest
import torch

from recsys_mtl.model.towers import (
    DCNV2Tower,
    FinalMLPTower,
    MLPTower,
    Selection,
    Stream,
    WideDeepTower,
)

B, T, D = 6, 3, 4
NUM_LOGITS = (1, 2, 1)
GATED = Stream((8,), 0.0, Selection(4, (5,), learned=False))
LEARNED = Stream((6,), 0.0, Selection(4, (5,), learned=True, init_std=1.0))
TOWERS = {
    "mlp": lambda: MLPTower(D, (5,), num_logits=NUM_LOGITS, batch_norm=True),
    "final_mlp": lambda: FinalMLPTower(
        D, GATED, LEARNED, num_logits=NUM_LOGITS, num_heads=2
    ),
    "dual_mlp": lambda: FinalMLPTower(
        D, Stream((8,)), Stream((6,)), num_logits=NUM_LOGITS, num_heads=0
    ),
    "dcn_v2": lambda: DCNV2Tower(
        D, (5,), num_layers=2, structure="stacked", num_logits=NUM_LOGITS
    ),
    "wide_deep": lambda: WideDeepTower(D, (5,), num_logits=NUM_LOGITS),
}


@pytest.fixture(params=TOWERS)
def tower(request):
    torch.manual_seed(0)
    return TOWERS[request.param]()


def contexts(tower, rows):
    needs = isinstance(tower, WideDeepTower) or (
        isinstance(tower, FinalMLPTower) and tower.fusion is not None
    )
    return (torch.randn(rows, 1, 4),) if needs else ()


@pytest.mark.parametrize("rows", [0, 1, B])
def test_any_number_of_rows_keeps_its_axes(tower, rows):
    found = tower.eval()(torch.randn(rows, T, D), contexts(tower, rows))
    assert [x_BC.shape for x_BC in found] == [(rows, count) for count in NUM_LOGITS]


def test_rows_do_not_see_each_other(tower):
    h_BTH, context = torch.randn(B, T, D), contexts(tower, B)
    tower.eval()
    together = tower(h_BTH, context)
    alone = tower(h_BTH[2:3], tuple(c[2:3] for c in context))
    for one, all_ in zip(alone, together, strict=True):
        torch.testing.assert_close(one, all_[2:3])


def test_bf16_says_about_the_same_and_learns(tower):
    h_BTH, context = torch.randn(B, T, D), contexts(tower, B)
    exact = torch.cat(tower(h_BTH, context), dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        rough = torch.cat([x_BC.float() for x_BC in tower(h_BTH, context)], dim=1)
    assert not rough.equal(exact)
    assert not rough.equal(rough.bfloat16().float()), "similar rows stay apart"
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.2)
    rough.square().sum().backward()
    for name, parameter in tower.named_parameters():
        assert parameter.grad.isfinite().all(), name


def test_the_same_seed_makes_the_same_tower(request, tower):
    torch.manual_seed(0)
    again = TOWERS[request.node.callspec.params["tower"]]()
    state = tower.state_dict()
    assert all(value.equal(state[name]) for name, value in again.state_dict().items())
