import itertools
import math

import pytest
import torch

from recsys_mtl.model.chains.aitm import AITM

B, T, H = 5, 4, 6
STEPS = (3, 0, 1)


@pytest.fixture
def chain() -> AITM:
    torch.manual_seed(0)
    chain = AITM(H, STEPS)
    with torch.no_grad():  # weights far from their small start
        for parameter in chain.parameters():
            parameter.normal_()
    return chain


def reference(chain, h_BTH):
    """The paper, one row and one step at a time."""
    h1, h2, h3 = chain.attention.weight.split(H)
    rows = []
    for h_TH in h_BTH:
        z = h_TH[STEPS[0]]
        row_TH = h_TH.clone()
        for layer, step in zip(chain.information, STEPS[1:], strict=True):
            p = (layer.weight @ z + layer.bias).clamp(min=0)
            sources = (p, h_TH[step])
            weights = [math.exp((h2 @ u) @ (h3 @ u) / math.sqrt(H)) for u in sources]
            z = sum(
                w / sum(weights) * (h1 @ u)
                for w, u in zip(weights, sources, strict=True)
            )
            row_TH[step] = z
        rows.append(row_TH)
    return torch.stack(rows)


@torch.no_grad()
def test_matches_the_paper_computed_naively(chain):
    h_BTH = torch.randn(B, T, H)
    expected_BTH = reference(chain, h_BTH)
    torch.testing.assert_close(
        chain.transfer(h_BTH), expected_BTH, rtol=1e-4, atol=1e-4
    )


def test_a_step_reads_all_steps_before_it_and_none_after(chain):
    h_BTH = torch.randn(B, T, H, requires_grad=True)
    z_BTH = chain.transfer(h_BTH)
    read = {}
    for step in STEPS:
        (grad_BTH,) = torch.autograd.grad(
            z_BTH[:, step].sum(), h_BTH, retain_graph=True
        )
        read[step] = {t for t in range(T) if grad_BTH[:, t].abs().sum() > 0}
    assert read == {3: {3}, 0: {3, 0}, 1: {3, 0, 1}}


def test_gradient_reaches_every_parameter(chain):
    chain.transfer(torch.randn(B, T, H)).square().sum().backward()
    for name, parameter in chain.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_dropout_acts_in_training_only():
    chain, h_BTH = AITM(H, STEPS, dropout=0.5), torch.randn(B, T, H)
    assert not chain.transfer(h_BTH).equal(chain.transfer(h_BTH))
    chain.eval()
    assert chain.transfer(h_BTH).equal(chain.transfer(h_BTH))


def test_the_calibrator_is_the_mean_by_which_steps_rise():
    logits = tuple(torch.randn(B, 1) for _ in range(T))
    expected = 0.0
    for row in range(B):
        prob = [torch.sigmoid(logits[t][row, 0]).item() for t in STEPS]
        expected += sum(max(b - a, 0.0) for a, b in itertools.pairwise(prob))
    penalty = AITM(H, STEPS, calibrator_weight=0.3).penalty(logits)
    assert penalty.item() == pytest.approx(0.3 * expected / B)


def test_steps_that_fall_cost_nothing_and_steps_that_rise_are_pulled_together():
    falling = (torch.tensor([[-1.0]]), torch.tensor([[-2.0]]))
    assert AITM(H, (0, 1)).penalty(falling) == 0
    click, order = (torch.tensor([[x]], requires_grad=True) for x in (-2.0, -1.0))
    AITM(H, (0, 1)).penalty((click, order)).backward()
    assert click.grad.item() < 0 < order.grad.item()
