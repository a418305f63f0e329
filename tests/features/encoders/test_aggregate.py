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
    np.testing.assert_allclose(rates, [0.2, 0.6, 1.0, 0.2], rtol=1e-6)
    np.testing.assert_allclose(about.counts(rows), np.log1p([0, 10, 1e9, 0]), rtol=1e-6)


def test_impossible_numbers_of_a_request_stay_finite():
    about = AggregateFit(rows=100, hits=20).finish(prior_rows=10.0)
    assert about.counts(pa.array([-5.0])).tolist() == [0.0]
    assert 0.0 <= about.rates(pa.array([3.0]), pa.array([50.0]))[0] <= 1.0
