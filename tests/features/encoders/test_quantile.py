from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_mtl.features.encoders.quantile import QuantileFit, Quantiles

NUMBERS = st.lists(
    st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, -0.0, 1.0]),
    max_size=40,
)


def fitted(blocks: list[list], capacity: int) -> QuantileFit:
    total = QuantileFit(capacity)
    for block in blocks:
        fit = QuantileFit(capacity)
        fit.update(pa.array(block, pa.float64()))
        total.merge(fit)
    return total


@given(st.lists(NUMBERS, max_size=5), st.integers(1, 20), st.randoms())
def test_blocks_merged_in_any_order_fit_like_all_at_once(blocks, capacity, random):
    at_once = fitted([list(chain.from_iterable(blocks))], capacity)
    random.shuffle(blocks)
    in_parts = fitted(blocks, capacity)
    assert in_parts.dropped_bits == at_once.dropped_bits
    np.testing.assert_array_equal(in_parts._numbers, at_once._numbers)
    np.testing.assert_array_equal(in_parts._counts, at_once._counts)


def test_every_row_still_counts_when_numbers_lose_bits():
    numbers = np.random.default_rng(0).normal(size=20_000)
    fit = fitted(np.split(numbers, 4), capacity=500)
    assert 0 < fit.dropped_bits < 52
    assert len(fit._numbers) <= 500
    assert fit._counts.sum() == 20_000


@pytest.mark.parametrize("capacity", [100_000, 1_000])
def test_buckets_hold_equally_many_rows(capacity):
    numbers = np.random.default_rng(0).lognormal(3, 2, 50_000)
    quantiles = fitted(np.split(numbers, 5), capacity).finish(num_buckets=10)
    counts = np.bincount(quantiles.ids(pa.array(numbers)), minlength=12)
    assert quantiles.size == 12
    assert counts[:2].tolist() == [0, 0]
    assert 4_500 < counts[2:].min() <= counts[2:].max() < 5_500


def test_cuts_are_the_empirical_quantiles():
    numbers = np.random.default_rng(0).permutation(1_000).astype(float)
    cuts = fitted([numbers.tolist()], 10_000).finish(num_buckets=4).cuts
    expected = np.quantile(numbers, [0.25, 0.5, 0.75], method="higher")
    assert cuts == tuple(expected)


def test_a_number_that_fills_several_buckets_takes_one():
    quantiles = fitted([[0.0] * 90 + list(range(1, 11))], 1_000).finish(num_buckets=10)
    assert quantiles.cuts == (1.0,)
    assert quantiles.ids(pa.array([0.0, 0.5, 1.0, -3.0, None])).tolist() == [
        2,
        2,
        3,
        2,
        0,
    ]


def test_a_constant_or_empty_column_has_one_bucket():
    assert fitted([[3.0] * 5], 100).finish(num_buckets=4).cuts == ()
    assert fitted([], 100).finish(num_buckets=4).cuts == ()
    assert Quantiles(()).ids(pa.array([1.0, None])).tolist() == [2, 0]


@given(NUMBERS)
def test_greater_numbers_never_have_smaller_ids(numbers):
    quantiles = fitted([numbers], 8).finish(num_buckets=4)
    ids = quantiles.ids(pa.array(sorted(numbers), pa.float64()))
    assert (np.diff(ids) >= 0).all()
    assert len(ids) == 0 or ids.max() < quantiles.size
