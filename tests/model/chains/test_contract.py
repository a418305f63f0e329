"""Promises every chain keeps; a new chain is one line in CHAINS."""

import pytest
import torch

from recsys_mtl.model.chains import AITM, ESMM, Independent

B, T, H = 6, 4, 5
STEPS = (2, 0)  # tasks 1 and 3 are outside, and the order is not that of the tasks
CHAINS = [Independent(), ESMM(STEPS), AITM(H, STEPS)]
WIDTHS = (1, 2, 1, 1)


@pytest.fixture(params=CHAINS, ids=lambda chain: type(chain).__name__)
def chain(request):
    return request.param


def draw(rows=B, scale=1.0):
    return tuple(scale * torch.randn(rows, width) for width in WIDTHS)


def test_tasks_outside_are_untouched(chain):
    h_BTH, logits = torch.randn(B, T, H), draw()
    for t in (1, 3):
        assert chain.transfer(h_BTH)[:, t].equal(h_BTH[:, t])
        assert chain.compose(logits)[t].equal(logits[t])
        assert chain.start([x_BC[0].tolist() for x_BC in logits])[t] == tuple(
            logits[t][0].tolist()
        )
    moved = tuple(x + 1 if t in (1, 3) else x for t, x in enumerate(logits))
    assert chain.penalty(moved).equal(chain.penalty(logits))


@pytest.mark.parametrize("rows", [1, B])
def test_axes_are_kept(chain, rows):
    assert chain.transfer(torch.randn(rows, T, H)).shape == (rows, T, H)
    composed = chain.compose(draw(rows))
    assert [x_BC.shape for x_BC in composed] == [(rows, width) for width in WIDTHS]
    assert chain.penalty(composed).shape == ()


def test_rows_do_not_see_each_other(chain):
    h_BTH, logits = torch.randn(B, T, H), draw()
    torch.testing.assert_close(chain.transfer(h_BTH)[2:3], chain.transfer(h_BTH[2:3]))
    alone = chain.compose(tuple(x_BC[2:3] for x_BC in logits))
    for one, all_ in zip(alone, chain.compose(logits), strict=True):
        torch.testing.assert_close(one, all_[2:3])


def test_composing_what_a_chain_starts_at_gives_what_was_asked_for(chain):
    asked = [(-3.0,), (0.5, -1.0), (-0.5,), (2.0,)]  # step 0 is rarer than step 2
    started = tuple(torch.tensor([task]) for task in chain.start(asked))
    for composed_1C, wanted in zip(chain.compose(started), asked, strict=True):
        torch.testing.assert_close(composed_1C, torch.tensor([wanted]))


@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_extreme_logits_stay_finite_and_keep_a_finite_gradient(chain, scale):
    torch.manual_seed(0)
    logits = tuple(x_BC.sign().mul(scale).requires_grad_() for x_BC in draw(64))
    composed = chain.compose(logits)
    penalty = chain.penalty(composed)
    (sum(x_BC.sum() for x_BC in composed) + penalty).backward()
    assert penalty.isfinite()
    for before, after in zip(logits, composed, strict=True):
        assert after.isfinite().all()
        assert before.grad.isfinite().all()


def test_under_autocast_hidden_vectors_keep_their_type(chain):
    with torch.autocast("cpu", torch.bfloat16):
        for dtype in (torch.float32, torch.bfloat16):
            assert chain.transfer(torch.randn(B, T, H).to(dtype)).dtype == dtype
