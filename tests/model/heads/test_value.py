import math

import pytest
import torch

from recsys_mtl.model.heads.value import LogNormalHead, SquaredHead

B = 50
AMOUNT_B = torch.rand(B) * 100


def sigma_of(logit):
    """Standard deviation that the second logit stands for, by its definition."""
    return math.exp(-4.0 + 5.5 / (1.0 + math.exp(-logit)))


def test_log_normal_loss_is_the_normal_likelihood_of_the_log():
    head = LogNormalHead(0.0, 1.0)
    logits_BC = torch.randn(B, 2)
    sigma_B = torch.tensor([sigma_of(logit) for logit in logits_BC[:, 1].tolist()])
    normal = torch.distributions.Normal(logits_BC[:, 0], sigma_B)
    torch.testing.assert_close(
        head.loss(logits_BC, AMOUNT_B), -normal.log_prob(AMOUNT_B.log1p())
    )


def test_log_normal_prediction_is_the_mean_amount():
    head = LogNormalHead(0.0, 1.0)
    logits_BC = torch.tensor([[2.0, 0.5], [3.0, -1.0]])
    sigma_B = torch.tensor([sigma_of(0.5), sigma_of(-1.0)])
    expected = torch.distributions.LogNormal(logits_BC[:, 0], sigma_B).mean - 1
    torch.testing.assert_close(head.predict(logits_BC), expected)


def test_log_normal_starts_at_the_training_statistics():
    mean, logit = LogNormalHead(2.5, 0.7).initial_logits
    assert mean == 2.5
    assert sigma_of(logit) == pytest.approx(0.7)


def test_a_mean_below_nothing_is_predicted_as_nothing():
    assert LogNormalHead(0.0, 1.0).predict(torch.tensor([[-5.0, -9.0]])).item() == 0.0


def test_squared_loss_counts_in_units_of_the_mean():
    logits_BC = torch.randn(B, 1)
    seconds, minutes = SquaredHead(mean=60.0), SquaredHead(mean=1.0)
    torch.testing.assert_close(
        seconds.loss(logits_BC, AMOUNT_B), minutes.loss(logits_BC, AMOUNT_B / 60)
    )
    torch.testing.assert_close(
        seconds.predict(logits_BC), 60 * minutes.predict(logits_BC)
    )


def test_squared_loss_is_half_the_squared_error_of_its_prediction():
    head = SquaredHead(mean=7.0)
    logits_BC = torch.randn(B, 1)
    error_B = (AMOUNT_B - head.predict(logits_BC)) / 7
    torch.testing.assert_close(head.loss(logits_BC, AMOUNT_B), error_B.square() / 2)
