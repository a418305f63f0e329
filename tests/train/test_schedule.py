import pytest

from recsys_mtl.config.train import ConstantSchedule, EarlyStopping, PlateauSchedule
from recsys_mtl.errors import ConfigError, DataError
from recsys_mtl.train.schedule import Schedule, read_metric


def schedule(*, metric="a.auc", patience=2, min_delta=0.0, warmup=0, **plateau):
    spec = PlateauSchedule(kind="plateau", **plateau) if plateau else ConstantSchedule()
    stopping = EarlyStopping(metric=metric, patience=patience, min_delta=min_delta)
    return Schedule(warmup, spec, stopping)


def observed(watch, name, values):
    return [watch.observe({"a": {name: value}}) for value in values]


def test_a_rising_metric_is_best_at_its_highest():
    assert observed(schedule(), "auc", [0.6, 0.5, 0.7]) == [True, False, True]


def test_a_falling_metric_is_best_at_its_lowest():
    watch = schedule(metric="a.log_loss")
    assert observed(watch, "log_loss", [0.6, 0.5, 0.7]) == [True, True, False]


def test_progress_below_min_delta_is_none():
    watch = schedule(min_delta=0.1)
    assert observed(watch, "auc", [0.6, 0.65, 0.75]) == [True, False, True]


def test_patience_counts_checks_in_a_row_without_progress():
    watch = schedule(patience=2)
    observed(watch, "auc", [0.6, 0.5, 0.7, 0.6])
    assert not watch.exhausted
    observed(watch, "auc", [0.6])
    assert watch.exhausted


def test_plateau_cuts_the_rate_at_every_check_without_progress():
    watch = schedule(patience=9, factor=0.1)
    observed(watch, "auc", [0.6, 0.5, 0.5, 0.7])
    assert watch.factor(10) == pytest.approx(0.01)


def test_warmup_rises_linearly_to_the_full_rate():
    watch = schedule(warmup=4)
    assert [watch.factor(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_the_mean_is_over_tasks_that_have_the_metric():
    metrics = {"a": {"auc": 0.5}, "b": {"auc": 0.7}, "c": {"rmse": 3.0}}
    assert read_metric("mean.auc", metrics) == pytest.approx(0.6)
    assert read_metric("b.auc", metrics) == 0.7


def test_an_undefined_metric_is_told_with_those_that_are_defined():
    with pytest.raises(DataError, match=r"'a\.auc' is undefined .* a\.rows"):
        read_metric("a.auc", {"a": {"rows": 3.0}})


def test_a_metric_without_a_better_end_cannot_steer():
    with pytest.raises(ConfigError, match="'rows'"):
        schedule(metric="a.rows")
