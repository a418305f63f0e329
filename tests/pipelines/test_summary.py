import pytest

from pipelines.summary import installed, over_seeds

FIRST = {"click": {"auc": 0.70, "rows": 10.0}, "watch": {"rmse": 2.0}}
SECOND = {"click": {"auc": 0.74, "rows": 10.0}, "watch": {"rmse": 4.0}}


def test_one_seed_is_its_own_mean_and_has_no_deviation():
    assert over_seeds([FIRST]) == (FIRST, {})


def test_means_and_sample_deviations_are_taken_by_task_and_metric():
    means, deviations = over_seeds([FIRST, SECOND])
    assert means["click"] == pytest.approx({"auc": 0.72, "rows": 10.0})
    assert deviations["click"] == pytest.approx({"auc": 0.04 / 2**0.5, "rows": 0.0})
    assert means["watch"] == pytest.approx({"rmse": 3.0})


def test_the_order_of_seeds_does_not_matter():
    swapped, straight = over_seeds([SECOND, FIRST]), over_seeds([FIRST, SECOND])
    for a, b in zip(swapped, straight, strict=True):
        assert a["click"] == pytest.approx(b["click"])


def test_a_metric_that_one_seed_has_not_is_left_out():
    means, deviations = over_seeds([FIRST, {**SECOND, "click": {"rows": 10.0}}])
    assert means["click"] == {"rows": 10.0}
    assert deviations["click"] == {"rows": 0.0}


def test_versions_name_what_makes_the_numbers():
    assert {"python", "recsys-mtl", "torch", "torchrec"} <= installed().keys()
