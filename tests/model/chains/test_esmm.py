import math

import pytest
import torch

from recsys_mtl.model.chains.esmm import ESMM
from recsys_mtl.model.heads import BinaryHead

B = 16


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return tuple(3 * torch.randn(B, 1) for _ in range(3))


def test_two_steps_are_the_paper(logits):
    click, order, _ = ESMM((0, 1)).compose(logits)
    clicked, bought, _ = (x_B1.double().sigmoid() for x_B1 in logits)
    torch.testing.assert_close(click.double().sigmoid(), clicked, rtol=1e-5, atol=0)
    expected = clicked * bought
    torch.testing.assert_close(order.double().sigmoid(), expected, rtol=1e-5, atol=0)


def test_matches_the_products_computed_naively(logits):
    steps = (2, 0, 1)
    composed = ESMM(steps).compose(logits)
    prob_B1 = torch.ones(B, 1, dtype=torch.float64)
    for t in steps:
        prob_B1 = prob_B1 / (1 + (-logits[t].double()).exp())
        expected = (prob_B1 / (1 - prob_B1)).log().float()
        torch.testing.assert_close(composed[t], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 50.0, 1e4])
def test_no_step_is_likelier_than_the_one_before(logits, scale):
    first, second, third = ESMM((0, 1, 2)).compose(
        tuple(scale * x_B1 for x_B1 in logits)
    )
    assert (second <= first).all()
    assert (third <= second).all()


def test_a_step_that_always_follows_is_as_likely_as_the_one_before():
    click = torch.linspace(-40, 40, 9)[:, None]
    _, order = ESMM((0, 1)).compose((click, torch.full((9, 1), 1e3)))
    torch.testing.assert_close(order, click)


def test_gradients_are_those_of_the_formula():
    logits = tuple(torch.randn(4, 1, dtype=torch.float64) for _ in range(3))
    inputs = tuple(x_B1.requires_grad_() for x_B1 in logits)
    chain = ESMM((1, 2, 0))
    assert torch.autograd.gradcheck(lambda *said: chain.compose(said), inputs)


def test_an_order_teaches_the_click_as_well(logits):
    click, order, _ = (x_B1.requires_grad_() for x_B1 in logits)
    _, composed, _ = ESMM((0, 1)).compose((click, order, logits[2]))
    BinaryHead(0.5).loss(composed, torch.ones(B)).sum().backward()
    assert (click.grad < 0).all()
    assert (order.grad < 0).all()


def log_odds(prob):
    return (math.log(prob / (1 - prob)),)


def test_a_later_rate_above_an_earlier_one_starts_near_certain_and_finite():
    click, order, review = ESMM((0, 1, 2)).start(
        [log_odds(0.2), log_odds(0.5), log_odds(0.1)]
    )
    assert click == pytest.approx(log_odds(0.2))
    assert order == pytest.approx(log_odds(0.99))
    assert review == pytest.approx(log_odds(0.1 / (0.2 * 0.99)))
