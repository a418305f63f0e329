"""Promises every head keeps; a new head is one line in HEADS."""

import pytest
import torch

from recsys_mtl.model.heads import BinaryHead, LogNormalHead, SquaredHead

B = 64
torch.manual_seed(0)
CLICKS_B = torch.randint(0, 2, (B,)).float()
AMOUNT_B = torch.distributions.LogNormal(1.0, 0.5).sample((B,))
LOGS_B = AMOUNT_B.log1p()
HEADS = [
    (BinaryHead(CLICKS_B.mean().item()), CLICKS_B),
    (LogNormalHead(LOGS_B.mean().item(), LOGS_B.std(correction=0).item()), AMOUNT_B),
    (SquaredHead(AMOUNT_B.mean().item()), AMOUNT_B),
]


@pytest.fixture(params=HEADS, ids=lambda case: type(case[0]).__name__)
def case(request):
    return request.param


def fit(head, label_B):
    """Logits that fit the labels best, found by descent from zero."""
    logits_C = torch.zeros(head.num_logits, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits_C], max_iter=200, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = head.loss(logits_C.expand(B, -1), label_B).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return logits_C.detach()


def test_loss_and_prediction_are_per_row_and_finite(case):
    head, label_B = case
    logits_BC = torch.randn(B, head.num_logits)
    for result_B in (head.loss(logits_BC, label_B), head.predict(logits_BC)):
        assert result_B.shape == (B,)
        assert result_B.isfinite().all()


def test_initial_logits_are_the_best_fit_without_features(case):
    head, label_B = case
    torch.testing.assert_close(
        torch.tensor(head.initial_logits), fit(head, label_B), rtol=1e-3, atol=1e-3
    )


def test_initial_prediction_is_near_the_mean_label(case):
    head, label_B = case
    prediction_B = head.predict(torch.tensor(head.initial_logits)[None])
    # exact but for the log-normal head, whose labels are log-normal only in the limit
    torch.testing.assert_close(prediction_B[0], label_B.mean(), rtol=0.05, atol=0)


def test_extreme_logits_stay_finite_and_keep_a_finite_gradient(case):
    head, label_B = case
    for scale in (-1e4, -100.0, 100.0, 1e4):
        logits_BC = torch.full((B, head.num_logits), scale, requires_grad=True)
        loss_B = head.loss(logits_BC, label_B)
        loss_B.sum().backward()
        assert loss_B.isfinite().all()
        assert logits_BC.grad.isfinite().all()
        prediction_B = head.predict(logits_BC)
        assert prediction_B.isfinite().all()
        assert (prediction_B >= 0).all()


@pytest.mark.parametrize("statistic", [0.0, 1.0])
def test_labels_all_alike_give_a_finite_start(case, statistic):
    kind = type(case[0])
    head = kind(statistic, 0.0) if kind is LogNormalHead else kind(statistic)
    logits_C = torch.tensor(head.initial_logits)
    assert logits_C.isfinite().all()
    assert head.predict(logits_C[None]).isfinite().all()
