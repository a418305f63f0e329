from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_mtl.features.encoders.numeric import MomentsFit, Scale

NUMBERS = st.lists(st.floats(-1e6, 1e6) | st.none(), max_size=20)


def fitted(blocks: list[list], transform: str = "standardise") -> Scale:
    total = MomentsFit(transform)
    for block in blocks:
        fit = MomentsFit(transform)
        fit.update(pa.array(block, pa.float64()))
        total.merge(fit)
    return total.finish()


@given(st.lists(NUMBERS, max_size=5), st.randoms())
def test_blocks_merged_in_any_order_fit_like_all_at_once(blocks, random):
    at_once = fitted([list(chain.from_iterable(blocks))])
    random.shuffle(blocks)
    in_parts = fitted(blocks)
    assert in_parts.mean == pytest.approx(at_once.mean, rel=1e-9, abs=1e-9)
    assert in_parts.std == pytest.approx(at_once.std, rel=1e-6, abs=1e-6)


def test_ordinary_columns_fit_to_the_same_digits_in_any_order():
    blocks = np.split(np.random.default_rng(0).lognormal(3, 1, 10_000), 10)
    assert fitted(blocks) == fitted(blocks[::-1]) == fitted([np.concatenate(blocks)])


@pytest.mark.parametrize("transform", ["standardise", "log1p"])
def test_scaled_training_numbers_have_mean_0_and_spread_1(transform):
    numbers = np.random.default_rng(0).lognormal(8, 3, 20_000)
    scaled = fitted([numbers.tolist()], transform).apply(pa.array(numbers))
    assert scaled.dtype == np.float32
    assert scaled.mean() == pytest.approx(0.0, abs=1e-4)
    assert scaled.std() == pytest.approx(1.0, abs=1e-4)


def test_a_large_offset_does_not_drown_the_spread():
    numbers = 1e9 + np.arange(10.0)
    assert fitted([numbers.tolist()]).std == pytest.approx(np.std(numbers), rel=1e-6)


def test_log1p_keeps_the_sign():
    scale = Scale(transform="log1p", mean=0.0, std=1.0)
    got = scale.apply(pa.array([-3.0, 0.0, 3.0]))
    np.testing.assert_allclose(got, [-np.log(4), 0, np.log(4)], rtol=1e-6)


@pytest.mark.parametrize("constant", [0.0, 7.0, 0.1, -1e9])
def test_a_constant_column_becomes_0_and_keeps_the_scale_of_others(constant):
    scale = fitted([[constant] * 7, [constant] * 3])
    assert scale.std == 1.0
    got = scale.apply(pa.array([constant, constant + 1.0]))
    np.testing.assert_allclose(got, [0.0, 1.0], atol=1e-6)


def test_missing_counts_as_the_training_mean():
    cells = pa.array([1.0, 3.0, None])
    assert fitted([[1.0, 3.0]]).apply(cells)[2] == 0.0
    identity = fitted([[1.0, 3.0]], "identity")
    assert identity.apply(cells).tolist() == [1.0, 3.0, 2.0]


def test_without_training_numbers_nothing_is_scaled():
    assert fitted([[None]]).apply(pa.array([5.0, None])).tolist() == [5.0, 0.0]


@pytest.mark.parametrize("transform", ["identity", "standardise", "log1p"])
def test_extreme_numbers_stay_finite(transform):
    scale = fitted([[1e300, -1e300, 0.0], [1.7e308] * 3], transform)
    assert np.isfinite([scale.mean, scale.std]).all()
    assert np.isfinite(scale.apply(pa.array([1e308, -1e308, 0.0]))).all()
