"""Calibrators against scikit-learn, and what must hold of every kind."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from recsys_mtl.calibrate import (
    Calibration,
    IsotonicCalibrator,
    PlattCalibrator,
    SamplingCorrection,
    TemperatureCalibrator,
    check_labels,
    fit_calibration,
    wants_calibration,
)
from recsys_mtl.calibrate.fit import MIN_SLOPE
from recsys_mtl.config.task import BinaryTask, ValueTask
from recsys_mtl.errors import ArtifactError, DataError
from recsys_mtl.evaluate.metric import binary_metrics

ROWS = 4_000
KINDS = ("platt", "temperature", "isotonic")
STEPS = (
    SamplingCorrection(rate=0.05, splits="train"),
    PlattCalibrator(slope=0.7, intercept=-1.0),
    TemperatureCalibrator(temperature=2.5),
    IsotonicCalibrator(predictions=(0.1, 0.5, 0.9), rates=(0.2, 0.2, 0.6)),
)


def make_task(kind="none", sampling=None):
    return BinaryTask.model_validate(
        {
            "kind": "binary",
            "name": "click",
            "label": "click",
            "calibration": {"kind": kind},
            "negative_sampling": sampling,
        }
    )


def make_rows(slope=1.0, intercept=0.0, rows=ROWS, seed=0):
    """Labels of known probability, and float32 predictions of another slope."""
    rng = np.random.default_rng(seed)
    truth_B = rng.normal(-1.0, 1.5, rows)
    label_B = (rng.random(rows) < 1 / (1 + np.exp(-truth_B))).astype(np.float64)
    said_B = 1 / (1 + np.exp(-(truth_B - intercept) / slope))
    return label_B, said_B.astype(np.float32)


def fit_one(kind, label_B, prob_B, sampling=None):
    task = make_task(kind, sampling)
    return fit_calibration([task], label_B[:, None], prob_B[:, None])


def apply_one(calibration, prob_B, **options):
    return calibration.apply(prob_B[:, None], ("click",), **options)[:, 0]


def smoothed(label_B):
    positives = label_B.sum()
    negatives = len(label_B) - positives
    return np.where(
        label_B == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2)
    )


def by_scikit_learn(label_B, prob_B, *, fit_intercept):
    """Logistic regression on logits; a target is a weighted yes and a weighted no."""
    logit_B = np.log(prob_B.astype(np.float64)) - np.log1p(-prob_B.astype(np.float64))
    target_B = smoothed(label_B)
    model = LogisticRegression(C=np.inf, tol=1e-12, fit_intercept=fit_intercept)
    model.fit(
        np.tile(logit_B, 2)[:, None],
        np.repeat([1, 0], len(logit_B)),
        sample_weight=np.concatenate([target_B, 1 - target_B]),
    )
    return model.predict_proba(logit_B[:, None])[:, 1]


@pytest.mark.parametrize(("slope", "intercept"), [(2.0, 0.5), (0.6, -2.0), (1.0, 0.0)])
@pytest.mark.parametrize("kind", ["platt", "temperature"])
def test_sigmoids_are_those_of_scikit_learn(kind, slope, intercept):
    label_B, prob_B = make_rows(slope, intercept)
    found_B = apply_one(fit_one(kind, label_B, prob_B), prob_B.astype(np.float64))
    oracle_B = by_scikit_learn(label_B, prob_B, fit_intercept=kind == "platt")
    np.testing.assert_allclose(found_B, oracle_B, atol=2e-5)


def test_isotonic_is_that_of_scikit_learn():
    label_B, prob_B = make_rows(2.0, 0.5)
    prob_B = np.round(prob_B, 2)  # with ties
    found = fit_one("isotonic", label_B, prob_B)
    oracle = IsotonicRegression(out_of_bounds="clip")
    oracle.fit(prob_B.astype(np.float64), smoothed(label_B))
    asked_B = np.linspace(0, 1, 501)
    np.testing.assert_allclose(
        apply_one(found, asked_B), oracle.predict(asked_B), atol=1e-7
    )
    (step,) = found.tasks["click"]
    assert len(step.predictions) < len(np.unique(prob_B))


@pytest.mark.parametrize("kind", KINDS)
def test_calibrated_probabilities_add_up_to_the_positives(kind):
    # A temperature cannot mend a level that is wrong as a whole.
    label_B, prob_B = make_rows(2.0, 0.0 if kind == "temperature" else 2.0)
    before = binary_metrics(label_B, prob_B)
    after = binary_metrics(label_B, apply_one(fit_one(kind, label_B, prob_B), prob_B))
    assert after["log_loss"] < before["log_loss"]
    assert after["ece"] < before["ece"] / 2
    if kind != "temperature":
        assert after["calibration_ratio"] == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_calibrated_already_is_left_nearly_alone(kind):
    label_B, prob_B = make_rows(rows=50_000)
    moved_B = apply_one(fit_one(kind, label_B, prob_B), prob_B) - prob_B
    assert np.abs(moved_B).mean() < 0.01


@pytest.mark.parametrize("kind", ["platt", "temperature"])
def test_sigmoids_leave_ranking_metrics_alone(kind):
    label_B, prob_B = make_rows(2.0, 1.0)
    found = fit_one(kind, label_B, prob_B)
    group_B = np.arange(ROWS) % 50
    before = binary_metrics(label_B, prob_B, group_B)
    after = binary_metrics(label_B, apply_one(found, prob_B), group_B)
    for metric in ("auc", "gauc"):
        assert after[metric] == pytest.approx(before[metric], abs=1e-6)  # float32 ties
    in_float64 = binary_metrics(
        label_B, apply_one(found, prob_B.astype(np.float64)), group_B
    )
    assert in_float64["auc"] == before["auc"]


def test_isotonic_ties_what_validation_could_not_tell_apart_and_turns_nothing_round():
    label_B, prob_B = make_rows(2.0, 1.0)
    calibrated_B = apply_one(fit_one("isotonic", label_B, prob_B), prob_B)
    assert (np.diff(calibrated_B[np.argsort(prob_B)]) >= 0).all()
    assert len(np.unique(calibrated_B)) < len(np.unique(prob_B))
    # On the rows of the fit itself, pooling can only help.
    assert (
        binary_metrics(label_B, calibrated_B)["auc"]
        >= (binary_metrics(label_B, prob_B)["auc"])
    )


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.kind)
@given(probs=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_every_step_keeps_order_and_stays_a_probability(step, probs):
    prob_B = np.sort(np.array([0.0, *probs, 1.0]))
    calibrated_B = step.apply(prob_B)
    assert np.isfinite(calibrated_B).all()
    assert (calibrated_B >= 0).all()
    assert (calibrated_B <= 1).all()
    assert (np.diff(calibrated_B) >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_worse_than_chance_is_not_turned_round(kind):
    label_B, prob_B = make_rows()
    found = fit_one(kind, 1 - label_B, prob_B)
    calibrated_B = apply_one(found, np.linspace(0.01, 0.99, 50))
    assert (np.diff(calibrated_B) >= 0).all()
    assert np.ptp(calibrated_B) < 0.1
    (step,) = found.tasks["click"]
    if kind == "platt":
        assert step.slope == MIN_SLOPE


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_and_constant_predictions_have_a_finite_fit(kind):
    label_B = np.array([0.0, 1.0, 0.0, 1.0])
    for prob_B in (np.array([0.0, 1.0, 0.0, 1.0]), np.full(4, 0.3)):
        calibrated_B = apply_one(fit_one(kind, label_B, prob_B), prob_B)
        assert np.isfinite(calibrated_B).all()
        assert calibrated_B.min() > 0
        assert calibrated_B.max() < 1


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_the_correction_gives_back_what_sampling_took(rate):
    # Bayes: of (p, 1 - p), the negatives are thinned to the rate.
    true_B = np.linspace(0.001, 0.999, 100)
    sampled_B = true_B / (true_B + rate * (1 - true_B))
    step = SamplingCorrection(rate=rate, splits="train")
    np.testing.assert_allclose(step.apply(sampled_B), true_B, rtol=1e-12)


@pytest.mark.parametrize("splits", ["train", "all"])
@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_served_probabilities_are_those_of_all_rows_wherever_was_sampled(kind, splits):
    label_B, true_B = make_rows(rows=100_000)
    rng, rate = np.random.default_rng(1), 0.1
    said_B = true_B / (true_B + rate * (1 - true_B))  # learned from sampled rows
    kept_B = (label_B == 1) | (rng.random(len(label_B)) < rate)
    fitted_B = kept_B if splits == "all" else np.ones_like(kept_B)
    found = fit_one(
        kind, label_B[fitted_B], said_B[fitted_B], {"rate": rate, "splits": splits}
    )
    served_B = apply_one(found, said_B)
    assert served_B.sum() == pytest.approx(label_B.sum(), rel=0.03)
    measured_B = apply_one(found, said_B[fitted_B], as_read=True)
    assert measured_B.sum() == pytest.approx(label_B[fitted_B].sum(), rel=0.03)


def test_without_steps_the_same_array_comes_back():
    prediction_BT = np.ones((2, 1), np.float32)
    assert Calibration().apply(prediction_BT, ("click",)) is prediction_BT


def test_other_tasks_are_left_as_they_are():
    tasks = [
        ValueTask(kind="value", name="watch", label="watch"),
        make_task("platt"),
    ]
    label_B, prob_B = make_rows(2.0)
    label_BT = np.stack([label_B, label_B], axis=1)
    label_BT[:10, 1] = np.nan  # no label, no say
    prediction_BT = np.stack([prob_B, prob_B], axis=1)
    found = fit_calibration(tasks, label_BT, prediction_BT)
    assert found.names == {"click": "platt"}
    calibrated_BT = found.apply(prediction_BT, ("watch", "click"))
    np.testing.assert_array_equal(calibrated_BT[:, 0], prob_B)
    assert (calibrated_BT[:, 1] != prob_B).any()
    assert calibrated_BT.dtype == np.float32
    alone = fit_one("platt", label_B[10:], prob_B[10:])
    assert alone.tasks == found.tasks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_alone_is_refused_with_the_way_out(kind, label):
    with pytest.raises(DataError, match=f"'{kind}' of task 'click' needs positives"):
        fit_one(kind, np.full(9, label), np.full(9, 0.5))
    with pytest.raises(DataError, match="got 0 positives in 9 labelled rows; take a"):
        check_labels([make_task(kind)], {"click": (0, 9)})


def test_whether_there_is_anything_to_do():
    assert not wants_calibration([make_task()])
    assert wants_calibration([make_task("platt")])
    assert wants_calibration([make_task(sampling={"rate": 0.1, "splits": "all"})])


def test_calibration_reads_back_as_it_was_and_its_version_tells_it_from_others(
    tmp_path,
):
    calibration = Calibration(tasks={"click": STEPS})
    calibration.save(tmp_path / "c.json")
    again = Calibration.load(tmp_path / "c.json")
    assert again.tasks == calibration.tasks
    assert again.version == calibration.version
    assert Calibration(tasks={"click": STEPS[1:]}).version != calibration.version
    (tmp_path / "c.json").write_text('{"tasks": {"click": [{"kind": "platt"}]}}')
    with pytest.raises(ArtifactError, match=r"c\.json cannot be read"):
        Calibration.load(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (((0.1, 0.2), (0.1,)), "as many rates as predictions, got 1 and 2"),
        (((0.2, 0.2), (0.1, 0.2)), "predictions must rise"),
        (((0.1, 0.2), (0.2, 0.1)), "rates must not fall"),
    ],
)
def test_points_that_fall_are_refused(points, sentence):
    predictions, rates = points
    with pytest.raises(ValidationError, match=sentence):
        IsotonicCalibrator(predictions=predictions, rates=rates)
