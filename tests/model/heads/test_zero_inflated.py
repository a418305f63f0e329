import math

import torch
from torch.distributions import Bernoulli, LogNormal

from recsys_mtl.model.heads.zero_inflated import ZeroInflatedLogNormalHead

B = 40
HEAD = ZeroInflatedLogNormalHead(positive_rate=0.3, log_mean=1.0, log_std=0.5)
torch.manual_seed(0)
LOGITS_BC = torch.randn(B, 3)
LABEL_B = torch.where(torch.rand(B) < 0.5, 0.0, LogNormal(1.0, 1.0).sample((B,)))


def sigma(logit_B):
    """Standard deviation that the third logit stands for, by its definition."""
    return (-4.0 + 5.5 * logit_B.sigmoid()).exp()


def test_loss_is_the_likelihood_but_for_the_term_without_logits():
    for logits_C, label in zip(LOGITS_BC, LABEL_B, strict=True):
        prob_logit, mu, width = logits_C
        expected = -Bernoulli(logits=prob_logit).log_prob((label > 0).float())
        if label > 0:
            expected -= LogNormal(mu, sigma(width)).log_prob(label) + label.log()
        loss = HEAD.loss(logits_C[None], label[None])
        torch.testing.assert_close(loss[0], expected, rtol=1e-4, atol=1e-4)


def test_prediction_is_the_probability_times_the_mean_amount():
    amount = LogNormal(LOGITS_BC[:, 1], sigma(LOGITS_BC[:, 2]))
    torch.testing.assert_close(
        HEAD.predict(LOGITS_BC), LOGITS_BC[:, 0].sigmoid() * amount.mean
    )
    prob_B = HEAD.details(LOGITS_BC)["prob_positive"]
    torch.testing.assert_close(prob_B, LOGITS_BC[:, 0].sigmoid())


def test_nothing_gives_no_gradient_to_the_amount():
    logits_BC = LOGITS_BC.clone().requires_grad_()
    HEAD.loss(logits_BC, torch.zeros(B)).sum().backward()
    assert (logits_BC.grad[:, 1:] == 0).all()
    assert logits_BC.grad.isfinite().all()


def test_starts_at_the_training_statistics():
    prob_logit, mu, width = HEAD.initial_logits
    assert math.isclose(1 / (1 + math.exp(-prob_logit)), 0.3)
    assert mu == 1.0
    torch.testing.assert_close(sigma(torch.tensor(width)), torch.tensor(0.5))
