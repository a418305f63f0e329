import numpy as np
import pytest
from sksurv.nonparametric import kaplan_meier_estimator

from recsys_mtl.features.life_table import bin_hazards, event_quantiles

ONE = np.ones(6, dtype=np.int64)
TIME = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])


def test_bins_have_equally_many_events_and_end_with_the_last():
    assert event_quantiles(TIME, ONE, 3) == (2.0, 4.0, 6.0)
    assert event_quantiles(TIME, np.array([9, 1, 1, 1, 1, 1]), 2) == (1.0, 6.0)
    assert event_quantiles(TIME - 1, np.array([9, 1, 1, 1, 1, 1]), 3) == (1.0, 5.0)
    assert event_quantiles(np.zeros(0), np.zeros(0, dtype=np.int64), 3) == ()


def test_on_distinct_times_hazards_are_those_of_kaplan_and_meier():
    rng = np.random.default_rng(0)
    events, censored = rng.integers(1, 9, 6), rng.integers(0, 9, 6)
    hazards = bin_hazards(tuple(TIME), TIME, events, censored)
    event_B = np.repeat([True, False], [events.sum(), censored.sum()])
    time_B = np.concatenate([np.repeat(TIME, events), np.repeat(TIME, censored)])
    _, share = kaplan_meier_estimator(event_B, time_B)
    np.testing.assert_allclose(np.cumprod(1 - np.array(hazards)), share, atol=1e-12)


def test_a_rate_is_found_under_censoring():
    rng = np.random.default_rng(0)
    time_B, lost_B = rng.exponential(3, 50_000), rng.exponential(2, 50_000)
    seen_B, event_B = np.minimum(time_B, lost_B), (time_B <= lost_B).astype(np.int64)
    edges = (0.3, 1.0, 2.0, 3.0, 4.0)
    hazards = np.array(bin_hazards(edges, seen_B, event_B, 1 - event_B))
    np.testing.assert_allclose(
        np.cumprod(1 - hazards), np.exp(-np.array(edges) / 3), atol=0.02
    )


def test_a_bin_that_nobody_enters_has_no_hazard():
    assert bin_hazards((7.0, 8.0), TIME, ONE, 0 * ONE) == (pytest.approx(1.0), 0.0)
