import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.cost import CostEstimate

sizes = st.tuples(st.integers(1, 50), st.integers(0, 5_000))


@given(
    batches=st.lists(sizes, min_size=5, max_size=40),
    a=st.floats(0, 0.01),
    b=st.floats(0, 1e-4),
)
def test_what_is_linear_is_found(batches, a, b):
    cost = CostEstimate()
    for requests, rows in batches:
        cost.learn(requests, rows, seconds=a * requests + b * rows)
    # Between batches it has seen; beyond them, one of two unknowns may be free.
    for requests, rows in batches[-3:]:
        wanted = a * requests + b * rows
        assert cost.of(requests, rows) == pytest.approx(wanted, rel=0.02, abs=1e-9)


@given(
    batches=st.lists(st.tuples(sizes, st.floats(0, 10)), min_size=1, max_size=30),
    asked=sizes,
)
def test_no_estimate_is_negative_and_more_never_takes_less(batches, asked):
    cost = CostEstimate()
    for (requests, rows), seconds in batches:
        cost.learn(requests, rows, seconds=seconds)
    requests, rows = asked
    assert 0.0 <= cost.of(requests, rows) <= cost.of(requests + 1, rows)
    assert cost.of(requests, rows) <= cost.of(requests, rows + 1)


def test_it_agrees_with_weighted_least_squares():
    rng = np.random.default_rng(0)
    size_N2 = np.column_stack([rng.integers(1, 9, 30), rng.integers(50, 900, 30)])
    seconds_N = size_N2 @ [0.002, 1e-5] * rng.uniform(0.9, 1.1, 30)
    cost = CostEstimate()
    for (requests, rows), seconds in zip(size_N2.tolist(), seconds_N, strict=True):
        cost.learn(requests, rows, seconds=seconds)
    root_N = np.sqrt(0.95 ** np.arange(29, -1, -1))
    a, b = np.linalg.lstsq(size_N2 * root_N[:, None], seconds_N * root_N)[0]
    assert cost.of(3, 700) == pytest.approx(3 * a + 700 * b, rel=1e-6)


def test_it_follows_a_change_of_pace():
    cost = CostEstimate()
    for _ in range(50):
        cost.learn(1, 500, seconds=0.1)
    for _ in range(100):
        cost.learn(1, 500, seconds=0.01)
    assert cost.of(1, 500) == pytest.approx(0.01, rel=0.1)
