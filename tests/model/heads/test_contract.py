"""Promises every head keeps; a new head is one line in HEADS."""

import pytest
import torch

from recsys_mtl.features.life_table import bin_hazards, event_quantiles
from recsys_mtl.model.heads import (
    BinaryHead,
    LogNormalHead,
    OrdinalHead,
    SquaredHead,
    SurvivalHead,
    ZeroInflatedLogNormalHead,
)

B = 64
torch.manual_seed(0)
CLICKS_B = torch.randint(0, 2, (B,)).float()
AMOUNT_B = torch.distributions.LogNormal(1.0, 0.5).sample((B,))
LOGS_B = AMOUNT_B.log1p()
SOME_B = CLICKS_B * AMOUNT_B
LEVEL_B = torch.arange(B).sqrt().floor().clamp(max=4) % 4
TIME_B = AMOUNT_B.sort().values
# Without the last edge: its hazard would be 1, which no finite logit fits.
EDGES = event_quantiles(TIME_B.double().numpy(), torch.ones(B).long().numpy(), 32)[:-1]
ONES_B = torch.ones(B).long().numpy()
HEADS = [
    (BinaryHead(CLICKS_B.mean().item()), CLICKS_B),
    (LogNormalHead(LOGS_B.mean().item(), LOGS_B.std(correction=0).item()), AMOUNT_B),
    (SquaredHead(AMOUNT_B.mean().item()), AMOUNT_B),
    (
        ZeroInflatedLogNormalHead(
            CLICKS_B.mean().item(),
            AMOUNT_B[CLICKS_B > 0].log().mean().item(),
            AMOUNT_B[CLICKS_B > 0].log().std(correction=0).item(),
        ),
        SOME_B,
    ),
    (OrdinalHead(LEVEL_B.long().bincount().tolist()), LEVEL_B),
    (
        SurvivalHead(
            EDGES, bin_hazards(EDGES, TIME_B.double().numpy(), ONES_B, 0 * ONES_B)
        ),
        TIME_B,
    ),
]
ALIKE = [
    BinaryHead(0.0),
    BinaryHead(1.0),
    LogNormalHead(1.0, 0.0),
    SquaredHead(0.0),
    ZeroInflatedLogNormalHead(0.0, 0.0, 0.0),
    ZeroInflatedLogNormalHead(1.0, 2.0, 0.0),
    OrdinalHead((0, 9, 0)),
    SurvivalHead((1.0, 2.0), (0.0, 0.0)),
    SurvivalHead((1.0, 2.0), (1.0, 0.0)),
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


@pytest.mark.parametrize("head", ALIKE, ids=lambda head: type(head).__name__)
def test_labels_all_alike_give_a_finite_start(head):
    logits_C = torch.tensor(head.initial_logits)
    assert logits_C.isfinite().all()
    assert head.predict(logits_C[None]).isfinite().all()


def test_curves_have_a_column_a_point_and_fall(case):
    head, _ = case
    curve_BP = head.curve(torch.randn(B, head.num_logits))
    assert curve_BP.shape == (B, len(head.points))
    assert (curve_BP.diff(dim=1) <= 0).all()
    assert list(head.points) == sorted(head.points)


def test_details_are_finite_numbers_a_row_under_names_that_stay(case):
    head, _ = case
    few, many = (
        head.details(scale * torch.randn(rows, head.num_logits))
        for rows, scale in ((1, 1.0), (B, 1e4))
    )
    assert list(few) == list(many)
    for detail_B in many.values():
        assert detail_B.shape == (B,)
        assert detail_B.isfinite().all()
