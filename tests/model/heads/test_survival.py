import math

import numpy as np
import pytest
import torch

from recsys_mtl.errors import ConfigError
from recsys_mtl.features.life_table import bin_hazards
from recsys_mtl.model.heads.survival import SurvivalHead

EDGES = (1.0, 2.5, 4.0, 10.0)
HEAD = SurvivalHead(EDGES, (0.1, 0.3, 0.2, 0.6), horizons=(1.0, 3.0, 10.0))
LABEL_B = torch.tensor(
    [0.0, -0.0, 0.4, -0.4, 1.0, -1.0, 2.0, -3.5, 4.0, -10.0, 12.0, -12.0]
)


def draw(rows=12):
    torch.manual_seed(0)
    return 2 * torch.randn(rows, len(EDGES))


def naive_loss(logits, label):
    """The likelihood of one row, bin by bin."""
    hazards = [1 / (1 + math.exp(-x)) for x in logits.tolist()]
    time, event = abs(label.item()), not label.signbit().item()
    loss, start = 0.0, 0.0
    for hazard, end in zip(hazards, EDGES, strict=True):
        if time <= end:
            if event:
                return loss - math.log(hazard)
            return loss - (time - start) / (end - start) * math.log(1 - hazard)
        loss -= math.log(1 - hazard)
        start = end
    return loss


def test_loss_is_the_likelihood_of_every_row():
    logits_BC = draw()
    expected_B = [naive_loss(x, y) for x, y in zip(logits_BC, LABEL_B, strict=True)]
    torch.testing.assert_close(
        HEAD.loss(logits_BC, LABEL_B), torch.tensor(expected_B), rtol=1e-5, atol=1e-5
    )


def test_on_edges_censoring_is_that_of_the_textbook():
    # l = -sum_{i <= b} log(1 - h_i)
    logits_BC = draw(4)
    loss_B = HEAD.loss(logits_BC, -torch.tensor(EDGES))
    lived_BC = -torch.log1p(-logits_BC.sigmoid())
    torch.testing.assert_close(loss_B, lived_BC.cumsum(1).diagonal())


def test_curves_fall_and_stay_probabilities():
    for scale in (1.0, 100.0, 1e4):
        curve_BC = HEAD.curve(scale * draw(200))
        assert (curve_BC >= 0).all()
        assert (curve_BC <= 1).all()
        assert (curve_BC.diff(dim=1) <= 0).all()


def test_censored_rows_only_push_hazards_down():
    logits_BC = draw().requires_grad_()
    HEAD.loss(logits_BC, -LABEL_B.abs()).sum().backward()
    seen_BC = LABEL_B.abs()[:, None] > torch.tensor((0.0, *EDGES[:-1]))
    assert (logits_BC.grad >= 0).all()
    # No term of an event: nothing at all in bins that the row was not watched in.
    assert ((logits_BC.grad > 0) == seen_BC).all()


def test_an_event_after_the_last_edge_is_censored_at_it():
    logits_BC = draw(1)
    late = HEAD.loss(logits_BC, torch.tensor([12.0]))
    assert late.equal(HEAD.loss(logits_BC, torch.tensor([-10.0])))
    assert late.equal(HEAD.loss(logits_BC, torch.tensor([-99.0])))


def test_prediction_is_the_area_under_survival():
    logits_BC = draw(20)
    grid_T = torch.linspace(0, EDGES[-1], 20_001)
    heads = [SurvivalHead(EDGES, HEAD.hazards, (t,)) for t in (0.7, 3.0, 9.0)]
    for head in heads:
        (horizon,) = head.horizons
        log_S = np.log(
            np.pad(head.curve(logits_BC), ((0, 0), (1, 0)), constant_values=1)
        )
        at_B = [np.exp(np.interp(horizon, (0.0, *EDGES), row)) for row in log_S]
        got_B = head.details(logits_BC)[f"survival@{horizon:g}"]
        np.testing.assert_allclose(got_B, at_B, rtol=1e-5)
    area_B = [
        np.trapezoid(np.exp(np.interp(grid_T, (0.0, *EDGES), row)), grid_T)
        for row in log_S
    ]
    np.testing.assert_allclose(HEAD.predict(logits_BC), area_B, rtol=1e-4)


def test_prediction_spans_from_nothing_to_the_last_edge():
    prediction_B = HEAD.predict(torch.tensor([[1e4] * 4, [-1e4] * 4]))
    assert prediction_B[0] < 1e-3
    assert prediction_B[1] == EDGES[-1]


def test_half_survive_the_median():
    logits_BC = draw(50)
    median_B = HEAD.details(logits_BC)["median"]
    beyond_B = HEAD.curve(logits_BC)[:, -1] > 0.5
    assert (median_B[beyond_B] == EDGES[-1]).all()
    for row in range(50):
        if not beyond_B[row]:
            head = SurvivalHead(EDGES, HEAD.hazards, (median_B[row].item(),))
            (name,) = (n for n in head.details(logits_BC) if n.startswith("survival"))
            assert head.details(logits_BC)[name][row] == pytest.approx(0.5, abs=1e-4)


def test_details_at_edges_are_those_of_the_curve():
    logits_BC = draw()
    details = HEAD.details(logits_BC)
    names = [f"{what}@{h}" for h in (1, 3, 10) for what in ("survival", "hazard")]
    assert list(details) == ["median", *names]
    torch.testing.assert_close(details["survival@1"], HEAD.curve(logits_BC)[:, 0])
    torch.testing.assert_close(details["survival@10"], HEAD.curve(logits_BC)[:, -1])
    torch.testing.assert_close(details["hazard@3"], logits_BC[:, 2].sigmoid())


def test_a_horizon_after_the_last_edge_is_refused():
    with pytest.raises(ConfigError, match="last edge of the bins, 10, got 11"):
        SurvivalHead(EDGES, HEAD.hazards, horizons=(2.0, 11.0))


def test_starts_at_the_life_table():
    rng = np.random.default_rng(0)
    time_N, lost_N = rng.exponential(3, 4_000), rng.exponential(6, 4_000)
    label_N = np.where(time_N < lost_N, time_N, -lost_N)
    event_N = (label_N > 0).astype(int)
    hazards = bin_hazards(EDGES, np.abs(label_N), event_N, 1 - event_N)
    head = SurvivalHead(EDGES, hazards)
    # Nothing of the rows is in the rate, so survival is that of the exponential.
    start_C = head.curve(torch.tensor(head.initial_logits)[None])[0]
    np.testing.assert_allclose(start_C, np.exp(-np.array(EDGES) / 3), atol=0.02)
    logits_BC = torch.tensor(head.initial_logits).expand(4_000, -1).clone()
    logits_BC.requires_grad_()
    head.loss(logits_BC, torch.tensor(label_N, dtype=torch.float32)).mean().backward()
    np.testing.assert_allclose(logits_BC.grad.sum(0), 0.0, atol=1e-5)
