import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binomtest, spearmanr
from sklearn.metrics import cohen_kappa_score, log_loss, roc_auc_score

from recsys_mtl.config.task import BinaryTask, ValueTask
from recsys_mtl.errors import ConfigError, DataError
from recsys_mtl.evaluate.auc import grouped_auc
from recsys_mtl.evaluate.calibration import calibration_table
from recsys_mtl.evaluate.curve import Curve
from recsys_mtl.evaluate.metric import (
    binary_metrics,
    evaluate_tasks,
    higher_is_better,
    ordinal_metrics,
    value_metrics,
)


def rows(seed: int, num: int = 500, step: float = 0.05):
    """Labels drawn from the predictions, which are rounded so that many are equal."""
    rng = np.random.default_rng(seed)
    logit_B = rng.normal(-1, 1.5, num)
    label_B = (rng.random(num) < expit(logit_B)).astype(np.float64)
    prediction_B = np.round(expit(logit_B) / step) * step
    return label_B, np.clip(prediction_B, 0.01, 0.99)


def pairs_auc(label_B, prediction_B) -> float:
    difference = prediction_B[label_B == 1][:, None] - prediction_B[label_B == 0]
    return ((difference > 0) + (difference == 0) / 2).mean()


def delong_by_definition(label_B, prediction_B) -> float:
    """The variance of the AUC from the matrix of all pairs."""
    difference = prediction_B[label_B == 1][:, None] - prediction_B[label_B == 0]
    order = (difference > 0) + (difference == 0) / 2
    m, n = order.shape
    return order.mean(1).var(ddof=1) / m + order.mean(0).var(ddof=1) / n


# AUC


@pytest.mark.parametrize("seed", range(5))
def test_auc_and_log_loss_equal_scikit_learns(seed):
    label_B, prediction_B = rows(seed)
    metrics = binary_metrics(label_B, prediction_B)
    assert metrics["auc"] == pytest.approx(
        roc_auc_score(label_B, prediction_B), abs=1e-12
    )
    assert metrics["log_loss"] == pytest.approx(
        log_loss(label_B, prediction_B), abs=1e-12
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30),
    st.randoms(use_true_random=False),
)
def test_auc_counts_pairs_whatever_the_ties_and_the_order_of_rows(cells, random):
    random.shuffle(cells)
    label_B = np.array([float(label) for label, _ in cells])
    prediction_B = np.array([level / 5 for _, level in cells])
    metrics = binary_metrics(label_B, prediction_B)
    if 0 < label_B.sum() < len(label_B):
        assert metrics["auc"] == pytest.approx(pairs_auc(label_B, prediction_B))
        assert 0 <= metrics.get("auc_low", 0) <= metrics["auc"]
        assert metrics["auc"] <= metrics.get("auc_high", 1) <= 1
    else:
        assert "auc" not in metrics
    json.dumps(metrics, allow_nan=False)


def test_a_constant_on_all_logits_leaves_auc_and_gauc_alone_and_moves_log_loss():
    label_B, prediction_B = rows(0)
    logit_B = np.log(prediction_B / (1 - prediction_B))
    group_B = np.arange(len(label_B)) % 7
    before = binary_metrics(label_B, expit(logit_B), group_B)
    after = binary_metrics(label_B, expit(logit_B + 0.7), group_B)
    for name in ("auc", "auc_low", "auc_high", "gauc", "gauc_groups"):
        assert after[name] == pytest.approx(before[name], abs=1e-12), name
    assert after["log_loss"] > before["log_loss"] + 0.01
    assert after["calibration_ratio"] > before["calibration_ratio"]


def test_the_order_of_rows_changes_no_metric():
    label_B, prediction_B = rows(1)
    group_B = np.arange(len(label_B)) % 11
    order_B = np.random.default_rng(0).permutation(len(label_B))
    assert binary_metrics(
        label_B[order_B], prediction_B[order_B], group_B[order_B]
    ) == pytest.approx(binary_metrics(label_B, prediction_B, group_B), abs=1e-12)


def test_swapping_the_classes_mirrors_auc_and_its_interval():
    label_B, prediction_B = rows(2)
    metrics = binary_metrics(label_B, prediction_B)
    mirrored = binary_metrics(1 - label_B, prediction_B)
    assert mirrored["auc"] == pytest.approx(1 - metrics["auc"])
    assert mirrored["auc_low"] == pytest.approx(1 - metrics["auc_high"])


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_is_delongs_variance_on_the_logit_scale(seed):
    label_B, prediction_B = rows(seed, num=60)
    metrics = binary_metrics(label_B, prediction_B)
    auc = metrics["auc"]
    half = 1.959963984540054 * np.sqrt(delong_by_definition(label_B, prediction_B))
    half /= auc * (1 - auc)
    centre = np.log(auc / (1 - auc))
    assert metrics["auc_low"] == pytest.approx(expit(centre - half), abs=1e-9)
    assert metrics["auc_high"] == pytest.approx(expit(centre + half), abs=1e-9)


def test_the_interval_holds_the_true_auc_19_times_in_20():
    rng = np.random.default_rng(0)
    truth = 0.7602499389065233  # P(x > y), x ~ N(1, 1), y ~ N(0, 1): Phi(1 / sqrt 2)
    num_trials, held = 1_000, 0
    for _ in range(num_trials):
        label_B = np.repeat([1.0, 0.0], [40, 80])
        prediction_B = expit(rng.normal(label_B, 1.0))
        metrics = binary_metrics(label_B, prediction_B)
        held += metrics["auc_low"] <= truth <= metrics["auc_high"]
    assert abs(held / num_trials - 0.95) < 0.021  # 3 standard errors


def test_the_interval_is_as_wide_as_the_bootstraps():
    label_B, prediction_B = rows(3, num=400)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(400):
        at = rng.integers(0, len(label_B), len(label_B))
        draws.append(binary_metrics(label_B[at], prediction_B[at])["auc"])
    low, high = np.quantile(draws, [0.025, 0.975])
    metrics = binary_metrics(label_B, prediction_B)
    assert metrics["auc_high"] - metrics["auc_low"] == pytest.approx(
        high - low, rel=0.15
    )


def test_classes_far_apart_get_the_exact_one_sided_end():
    label_B = np.array([0.0, 0.0, 0.0, 1.0, 1.0])
    metrics = binary_metrics(label_B, label_B * 0.5 + 0.2)
    assert metrics["auc"] == metrics["auc_high"] == 1.0
    # Two disjoint pairs in order: as likely as AUC squared.
    assert metrics["auc_low"] ** 2 == pytest.approx(0.025)


def test_one_row_of_a_class_has_an_auc_and_no_interval():
    metrics = binary_metrics(np.array([0.0, 1.0, 0.0]), np.array([0.2, 0.3, 0.4]))
    assert metrics["auc"] == 0.5
    assert "auc_low" not in metrics


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_alone_leaves_auc_and_entropy_out_and_keeps_counts(label):
    metrics = binary_metrics(np.full(3, label), np.array([0.2, 0.3, 0.4]), np.arange(3))
    assert metrics["rows"] == 3
    assert metrics["positives"] == 3 * label
    assert metrics["gauc_groups"] == 0
    assert not {"auc", "auc_low", "gauc", "normalised_entropy"} & metrics.keys()
    assert ("calibration_ratio" in metrics) == (label == 1.0)


# Grouped AUC


def test_grouped_auc_of_one_group_is_the_auc():
    label_B, prediction_B = rows(4)
    metrics = binary_metrics(label_B, prediction_B, np.zeros(len(label_B)))
    assert metrics["gauc"] == pytest.approx(metrics["auc"], abs=1e-12)
    assert metrics["gauc_groups"] == 1


def test_grouped_auc_equals_scikit_learn_group_by_group():
    label_B, prediction_B = rows(5)
    group_B = np.random.default_rng(0).choice(list("abcdefghij") * 8 + ["rare"], 500)
    total = weight = groups = 0
    for group in np.unique(group_B):
        of = group_B == group
        if len(np.unique(label_B[of])) == 2:
            total += roc_auc_score(label_B[of], prediction_B[of]) * of.sum()
            weight += of.sum()
            groups += 1
    got = grouped_auc(label_B, prediction_B, group_B)
    assert got["gauc"] == pytest.approx(total / weight, abs=1e-12)
    assert got["gauc_groups"] == groups


def test_grouped_auc_ignores_offsets_between_groups():
    label_B, prediction_B = rows(6)
    group_B = np.arange(len(label_B)) % 5
    shifted_B = (prediction_B + group_B) / 10
    assert grouped_auc(label_B, shifted_B, group_B) == pytest.approx(
        grouped_auc(label_B, prediction_B, group_B)
    )


# Calibration


def test_predicting_the_base_rate_has_entropy_1_and_is_calibrated():
    label_B, _ = rows(7)
    metrics = binary_metrics(label_B, np.full(len(label_B), label_B.mean()))
    assert metrics["normalised_entropy"] == pytest.approx(1)
    assert metrics["calibration_ratio"] == pytest.approx(1)
    assert metrics["ece"] == pytest.approx(0, abs=1e-12)
    assert metrics["auc"] == 0.5


def test_calibration_bins_are_equally_full_and_account_for_every_row():
    label_B, prediction_B = rows(8, num=1_003, step=1e-9)
    table = calibration_table(label_B, prediction_B, 10)
    assert set(table.rows.tolist()) <= {100, 101}
    assert table.rows.sum() == 1_003
    assert table.rows @ table.mean_label == pytest.approx(label_B.sum())
    assert table.rows @ table.mean_prediction == pytest.approx(prediction_B.sum())
    assert (np.diff(table.mean_prediction) > 0).all()


def test_ece_is_the_mean_gap_computed_naively():
    label_B, prediction_B = rows(9, num=400, step=1e-9)
    order_B = np.argsort(prediction_B)
    gaps = [
        abs(label_B[part].mean() - prediction_B[part].mean())
        for part in np.array_split(order_B, 20)
    ]
    metrics = binary_metrics(label_B, prediction_B)
    assert metrics["ece"] == pytest.approx(np.mean(gaps))
    assert metrics["ece_bins"] == 20


def test_intervals_of_calibration_bins_stay_in_0_and_1_and_hold_the_rate():
    label_B, prediction_B = rows(10, num=60)
    table = calibration_table(label_B, prediction_B)
    assert (table.label_low >= 0).all()
    assert (table.label_high <= 1).all()
    assert (table.label_low <= table.mean_label).all()
    assert (table.mean_label <= table.label_high).all()


def test_intervals_of_calibration_bins_are_wilsons():
    label_B, prediction_B = rows(10, num=60)
    table = calibration_table(label_B, prediction_B, 4)
    for n, rate, low, high in zip(
        table.rows, table.mean_label, table.label_low, table.label_high, strict=True
    ):
        result = binomtest(round(rate * n), int(n)).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((result.low, result.high), abs=1e-12)


def test_float32_certainty_costs_a_finite_log_loss():
    label_B = np.array([0.0, 1.0], dtype=np.float32)
    wrong = binary_metrics(label_B, 1 - label_B)["log_loss"]
    assert wrong == pytest.approx(-np.log(np.finfo(np.float32).eps), rel=1e-3)


# Values


def test_value_metrics_equal_their_formulas():
    rng = np.random.default_rng(0)
    label_B = rng.poisson(2, 300).astype(np.float64)
    prediction_B = label_B + rng.normal(size=300).round(1)
    metrics = value_metrics(label_B, prediction_B)
    error_B = prediction_B - label_B
    assert metrics["rmse"] == pytest.approx(np.sqrt((error_B**2).mean()))
    assert metrics["mae"] == pytest.approx(abs(error_B).mean())
    assert metrics["rank_correlation"] == pytest.approx(
        spearmanr(label_B, prediction_B).statistic
    )
    assert metrics["positives"] == (label_B > 0).sum()


def test_a_constant_prediction_has_no_rank_correlation():
    assert "rank_correlation" not in value_metrics(np.array([1.0, 2.0]), np.ones(2))


# Several tasks


TASKS = (
    BinaryTask(kind="binary", name="click", label="click"),
    ValueTask(kind="value", name="dwell", label="dwell"),
)


def test_rows_outside_a_task_do_not_touch_its_metrics():
    label_B, prediction_B = rows(11)
    label_BT = np.stack([label_B, label_B * 3], axis=1)
    prediction_BT = np.stack([prediction_B, prediction_B * 3], axis=1)
    group_B = np.arange(500) % 9
    outside_B = np.arange(500) % 3 == 0
    label_BT[outside_B, 0] = np.nan
    prediction_BT[outside_B, 0] = np.nan
    metrics = evaluate_tasks(TASKS, label_BT, prediction_BT, group_B)
    assert list(metrics) == ["click", "dwell"]
    assert metrics["click"] == binary_metrics(
        label_B[~outside_B], prediction_B[~outside_B], group_B[~outside_B]
    )
    assert metrics["dwell"]["rows"] == 500


def test_a_task_without_any_row_has_counts_only():
    metrics = evaluate_tasks(TASKS, np.full((4, 2), np.nan), np.full((4, 2), 0.5))
    nothing = {"rows": 0.0, "positives": 0.0}
    assert metrics == {"click": nothing, "dwell": nothing}


def test_permuting_tasks_permutes_their_metrics():
    label_B, prediction_B = rows(12)
    both = np.stack([label_B, label_B], 1), np.stack([prediction_B, prediction_B], 1)
    assert evaluate_tasks(TASKS, *both) == evaluate_tasks(TASKS[::-1], *both)


# Refusals


def test_a_prediction_that_is_no_probability_is_refused_with_task_row_and_value():
    label_BT, prediction_BT = np.zeros((3, 2)), np.full((3, 2), 0.5)
    prediction_BT[2, 0] = np.nan
    with pytest.raises(DataError, match=r"task 'click': .*got nan in row 2"):
        evaluate_tasks(TASKS, label_BT, prediction_BT)


def test_a_binary_label_of_2_is_refused():
    with pytest.raises(DataError, match=r"label must be 0 or 1, got 2\.0 in row 1"):
        binary_metrics(np.array([0.0, 2.0]), np.array([0.5, 0.5]))


def test_a_metric_without_a_better_end_is_refused_by_name():
    with pytest.raises(ConfigError, match="calibration_ratio"):
        higher_is_better("calibration_ratio")


def test_levels_are_measured_as_scikit_learn_does():
    rng = np.random.default_rng(0)
    above_BP = np.sort(rng.random((300, 3)))[:, ::-1]
    label_B = (rng.random(300)[:, None] < above_BP).sum(axis=1).astype(float)
    expected_B = above_BP.sum(axis=1)
    metrics = ordinal_metrics(label_B, expected_B, 4, Curve((0.0, 1.0, 2.0), above_BP))
    kappa = cohen_kappa_score(label_B, np.rint(expected_B), weights="quadratic")
    assert metrics["kappa"] == pytest.approx(kappa)
    prob_BL = -np.diff(np.pad(above_BP, ((0, 0), (1, 1)), constant_values=(1, 0)))
    assert metrics["log_loss"] == pytest.approx(log_loss(label_B, prob_BL))
    assert metrics["mae"] == pytest.approx(np.abs(label_B - expected_B).mean())
    assert "log_loss" not in ordinal_metrics(label_B, expected_B, 4)


def test_levels_that_are_all_alike_have_no_kappa():
    assert "kappa" not in ordinal_metrics(np.zeros(5), np.zeros(5), 3)
    assert ordinal_metrics(np.zeros(0), np.zeros(0), 3) == {"rows": 0, "positives": 0}
