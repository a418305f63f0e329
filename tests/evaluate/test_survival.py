import numpy as np
import pytest
from sksurv.metrics import (
    concordance_index_censored,
    concordance_index_ipcw,
    integrated_brier_score,
)
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from recsys_mtl.errors import DataError
from recsys_mtl.evaluate.concordance import concordance
from recsys_mtl.evaluate.curve import Curve
from recsys_mtl.evaluate.survival import (
    KaplanMeier,
    Observed,
    risk_groups,
    survival_metrics,
)

EDGES = (1.0, 2.0, 4.0, 7.0)


def draw(rows=300, seed=0, *, ties):
    """Signed times, and predictions that know something of them."""
    rng = np.random.default_rng(seed)
    rate_B = np.exp(rng.normal(size=rows))
    event_B = rng.exponential(4 / rate_B)
    lost_B = rng.exponential(5, rows)
    time_B = np.minimum(event_B, lost_B)
    risk_B = rate_B * np.exp(rng.normal(size=rows))
    if ties:
        time_B, risk_B = np.ceil(time_B * 2) / 2, np.round(risk_B)
    return np.where(event_B <= lost_B, time_B, -time_B), -risk_B


def curve_of(prediction_B):
    return Curve(EDGES, np.exp(prediction_B[:, None] * np.array(EDGES) / 6))


def surv(label_B):
    seen = Observed.of(label_B)
    return Surv.from_arrays(seen.event_B, seen.time_B)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_metrics_equal_scikit_survival(ties, seed):
    label_B, prediction_B = draw(seed=seed, ties=ties)
    curve = curve_of(prediction_B)
    metrics = survival_metrics(label_B, prediction_B, curve)
    seen, both = Observed.of(label_B), surv(label_B)
    harrell = concordance_index_censored(seen.event_B, seen.time_B, -prediction_B)
    assert metrics["c_index"] == pytest.approx(harrell[0], abs=1e-12)
    uno = concordance_index_ipcw(both, both, -prediction_B, tau=EDGES[-1])
    assert metrics["c_index_uno"] == pytest.approx(uno[0], abs=1e-12)
    brier = integrated_brier_score(both, both, curve.above_BP, np.array(EDGES))
    assert metrics["integrated_brier"] == pytest.approx(brier, abs=1e-12)


def test_kaplan_meier_equals_scikit_survival():
    label_B, _ = draw(ties=True)
    seen = Observed.of(label_B)
    for censoring in (False, True):
        ours = KaplanMeier.of(seen, censoring=censoring)
        times, share = kaplan_meier_estimator(
            seen.event_B, seen.time_B, reverse=censoring
        )
        np.testing.assert_array_equal(ours.time_N, times)
        np.testing.assert_allclose(ours.share_N, share, rtol=1e-12)


def test_concordance_counts_every_pair():
    label_B, prediction_B = draw(60, seed=3, ties=True)
    seen = Observed.of(label_B)
    weight_B = np.random.default_rng(0).random(60)
    hits = total = 0.0
    for i in range(60):
        for j in range(60):
            later = seen.time_B[j] > seen.time_B[i] or (
                seen.time_B[j] == seen.time_B[i] and not seen.event_B[j]
            )
            if seen.event_B[i] and later:
                total += weight_B[i]
                gap = prediction_B[j] - prediction_B[i]
                hits += weight_B[i] * (gap > 0) + weight_B[i] * (gap == 0) / 2
    found = concordance(seen.time_B, seen.event_B, prediction_B, weight_B)
    assert found == pytest.approx(hits / total)


def test_without_censoring_concordance_is_that_of_all_pairs_turned_around():
    label_B, prediction_B = draw(ties=False)
    seen = Observed(np.abs(label_B), np.ones(len(label_B), dtype=bool))
    forward = concordance(seen.time_B, seen.event_B, prediction_B)
    backward = concordance(seen.time_B, seen.event_B, -prediction_B)
    assert forward + backward == pytest.approx(1.0)
    assert concordance(seen.time_B, seen.event_B, seen.time_B) == 1.0
    assert concordance(seen.time_B, seen.event_B, 0 * seen.time_B) == 0.5


def test_a_million_rows_need_no_matrix_of_pairs():
    label_B, prediction_B = draw(1_000_000, ties=False)
    curve = curve_of(np.maximum(prediction_B, -5))
    few = survival_metrics(label_B[:20_000], prediction_B[:20_000])
    many = survival_metrics(label_B, prediction_B, curve)
    assert many["c_index"] == pytest.approx(few["c_index"], abs=0.02)


def test_what_the_rows_leave_undefined_is_absent():
    assert survival_metrics(np.zeros(0), np.zeros(0)) == {"rows": 0.0, "positives": 0.0}
    censored = survival_metrics(-np.arange(3.0), np.arange(3.0))
    assert censored == {"rows": 3.0, "positives": 0.0}


def test_a_time_of_zero_is_an_event_or_not_by_its_sign_bit():
    assert Observed.of(np.array([0.0, -0.0])).event_B.tolist() == [True, False]


def test_true_survival_is_calibrated_and_a_shifted_one_is_not():
    rng = np.random.default_rng(0)
    rate_B = rng.uniform(0.05, 0.6, 20_000)
    time_B, lost_B = rng.exponential(1 / rate_B), rng.uniform(0, 9, 20_000)
    label_B = np.where(time_B <= lost_B, time_B, -lost_B)
    true = Curve(EDGES, np.exp(-rate_B[:, None] * np.array(EDGES)))
    good = survival_metrics(label_B, -rate_B, true, (1.5, 4.0))
    bad = survival_metrics(label_B, -rate_B, Curve(EDGES, true.above_BP**2), (1.5, 4.0))
    assert good["ece"] < 0.02
    assert bad["ece"] > 0.1
    assert good["integrated_brier"] < bad["integrated_brier"]
    for table in risk_groups(label_B, true, (1.5, 4.0)):
        assert table.rows.tolist() == [2_000] * 10
        assert (np.diff(table.predicted) > 0).all()
        np.testing.assert_allclose(table.predicted, table.actual, atol=0.06)


def test_curves_fall_geometrically_between_their_points():
    curve = Curve((1.0, 3.0), np.array([[0.5, 0.25], [1.0, 1.0]]))
    np.testing.assert_allclose(curve.at(0.5), [0.5**0.5, 1.0])
    np.testing.assert_allclose(curve.at(2.0), [0.5 * 0.5**0.5, 1.0])
    np.testing.assert_allclose(curve.at(99.0), [0.25, 1.0])


def test_numbers_that_are_none_are_refused():
    with pytest.raises(DataError, match="every prediction must be finite, got nan"):
        survival_metrics(np.ones(2), np.array([1.0, np.nan]))
