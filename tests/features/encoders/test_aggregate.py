import numpy as np
import pyarrow as pa

from recsys_mtl.features.encoders.aggregate import AggregateFit


def test_the_mean_is_the_share_of_all_parts():
    total = AggregateFit()
    for rows, hits in ((10, 1), (30, 9)):
        part = AggregateFit()
        part.update(rows, hits)
        total.merge(part)
    assert total.finish(prior_rows=5.0).mean == 0.25
    assert AggregateFit().finish(prior_rows=5.0).mean == 0.0


def test_few_rows_say_little_and_many_say_all():
    fit = AggregateFit(rows=100, hits=20)
    about = fit.finish(prior_rows=10.0)
    rows = pa.array([0.0, 10.0, 1e9, None])
    rates = about.rates(rows, pa.array([0.0, 10.0, 1e9, None]))
    share = np.array([0.2, 0.6, (1e9 + 2) / (1e9 + 10), 0.2])
    log_odds = np.log(share / (1 - share)) - np.log(0.2 / 0.8)
    np.testing.assert_allclose(rates, log_odds, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        about.counts(rows), np.log1p([0, 10, 1e9, 0]) / np.log(11), rtol=1e-6
    )


def test_impossible_numbers_of_a_request_stay_finite():
    about = AggregateFit(rows=100, hits=20).finish(prior_rows=10.0)
    assert about.counts(pa.array([-5.0])).tolist() == [0.0]
    assert np.isfinite(about.rates(pa.array([3.0]), pa.array([50.0]))).all()


def test_what_never_or_always_happened_in_training_stays_finite():
    for hits in (0, 100):
        about = AggregateFit(rows=100, hits=hits).finish(prior_rows=10.0)
        rates = about.rates(pa.array([0.0, 7.0, 7.0]), pa.array([0.0, 0.0, 7.0]))
        assert np.isfinite(rates).all()
        assert rates[1] <= rates[0] == 0.0 <= rates[2]
