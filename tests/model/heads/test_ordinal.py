import numpy as np
import pytest
import torch

from recsys_mtl.model.heads.ordinal import OrdinalHead

ROWS = (5, 20, 10, 15)


def probabilities(head, logits_BC):
    return torch.stack(list(head.details(logits_BC).values()), dim=1)


@pytest.mark.parametrize("levels", [2, 3, 6])
def test_loss_is_the_likelihood_of_the_level(levels):
    torch.manual_seed(0)
    head = OrdinalHead([1] * levels)
    logits_BC = torch.randn(levels, levels - 1, dtype=torch.float64)
    prob_BL = probabilities(head, logits_BC)
    expected_B = -prob_BL.diagonal().log()
    loss_B = head.loss(logits_BC, torch.arange(levels).double())
    torch.testing.assert_close(loss_B, expected_B)


def test_the_curve_falls_whatever_the_logits_are():
    head = OrdinalHead(ROWS)
    for scale in (1.0, 30.0, 1e4):
        logits_BC = scale * torch.randn(100, 3)
        curve_BC = head.curve(logits_BC)
        assert (curve_BC.diff(dim=1) <= 0).all()
        prob_BL = probabilities(head, logits_BC)
        torch.testing.assert_close(prob_BL.sum(1), torch.ones(100))
        assert (prob_BL >= 0).all()


def test_starts_at_the_shares_of_the_levels():
    head = OrdinalHead(ROWS, ("bad", "poor", "fair", "good"))
    details = head.details(torch.tensor(head.initial_logits)[None])
    assert list(details) == ["prob@bad", "prob@poor", "prob@fair", "prob@good"]
    shares = [prob.item() for prob in details.values()]
    np.testing.assert_allclose(shares, np.array(ROWS) / sum(ROWS), rtol=1e-5)


def test_prediction_is_the_expected_level():
    head = OrdinalHead(ROWS)
    logits_BC = torch.randn(30, 3)
    expected_B = probabilities(head, logits_BC) @ torch.arange(4.0)
    torch.testing.assert_close(head.predict(logits_BC), expected_B)


def test_levels_without_rows_start_at_a_finite_logit():
    for rows in ((0, 10, 0), (10, 0, 0), (0, 0, 10), (0, 0, 0)):
        assert np.isfinite(OrdinalHead(rows).initial_logits).all()


def test_two_levels_are_a_binary_task():
    head = OrdinalHead((3, 1))
    logits_BC = torch.randn(8, 1)
    label_B = torch.tensor([0.0, 1.0] * 4)
    bernoulli = torch.distributions.Bernoulli(logits=logits_BC[:, 0])
    torch.testing.assert_close(
        head.loss(logits_BC, label_B), -bernoulli.log_prob(label_B)
    )
