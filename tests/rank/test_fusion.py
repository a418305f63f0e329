import numpy as np
import pytest

from recsys_mtl.config.score import ProductScore, SumScore
from recsys_mtl.rank.fusion import FLOOR, LARGEST, fuse

TASKS = ("click", "like", "watch")
P = np.random.default_rng(0).uniform(0.01, 5.0, (50, 3)).astype(np.float32)


def test_a_sum_is_the_weighted_sum():
    spec = SumScore(weights={"watch": 0.5, "click": 2.0})
    np.testing.assert_allclose(fuse(spec, P, TASKS), 2 * P[:, 0] + 0.5 * P[:, 2])


def test_a_product_is_the_product_of_powers():
    spec = ProductScore(kind="product", weights={"click": 1.0, "watch": -0.5})
    expected = P[:, 0].astype(np.float64) * P[:, 2].astype(np.float64) ** -0.5
    np.testing.assert_allclose(fuse(spec, P, TASKS), expected)


@pytest.mark.parametrize(
    "spec",
    [
        SumScore(weights={"click": 0.3, "like": 0.7, "watch": 1e-3}),
        ProductScore(kind="product", weights={"click": 0.3, "like": 0.7}),
    ],
    ids=lambda spec: spec.kind,
)
def test_a_row_scores_alone_as_among_others(spec):
    together = fuse(spec, P, TASKS)
    alone = np.concatenate([fuse(spec, P[i : i + 1], TASKS) for i in range(len(P))])
    np.testing.assert_array_equal(alone, together)


def test_a_product_with_zero_stays_finite_whatever_the_weight():
    zero = np.zeros((1, 3), dtype=np.float32)
    for weight in (-1.0, 0.0, 1.0):
        spec = ProductScore(kind="product", weights={"click": weight})
        np.testing.assert_allclose(fuse(spec, zero, TASKS), FLOOR**weight)


def test_permuting_tasks_changes_nothing():
    spec = SumScore(weights={"click": 1.0, "like": 3.0})
    order = [2, 0, 1]
    permuted = fuse(spec, P[:, order], tuple(TASKS[t] for t in order))
    np.testing.assert_array_equal(permuted, fuse(spec, P, TASKS))


@pytest.mark.parametrize(
    ("kind", "weights", "expected"),
    [
        ("product", {"watch": -1e6}, [1.0, LARGEST, 0.0, LARGEST]),
        ("product", {"watch": 1e6}, [1.0, 0.0, LARGEST, 0.0]),
        ("product", {"watch": -1e6, "click": 1e6}, [1.0, LARGEST, 0.0, LARGEST]),
        ("sum", {"watch": 1e6}, [1e6, 5e5, LARGEST, 0.0]),
        ("sum", {"watch": -1e6}, [-1e6, -5e5, -LARGEST, 0.0]),
    ],
)
def test_a_score_is_a_finite_number_whatever_the_weights(kind, weights, expected):
    spec = (SumScore if kind == "sum" else ProductScore)(kind=kind, weights=weights)
    watch = np.array([1.0, 0.5, 3e38, 0.0], np.float32)
    prediction = np.stack([np.ones_like(watch), watch, watch], axis=1)
    np.testing.assert_allclose(fuse(spec, prediction, TASKS), expected)


@pytest.mark.parametrize("kind", ["sum", "product"])
def test_a_prediction_that_is_no_number_scores_last(kind):
    spec = (SumScore if kind == "sum" else ProductScore)(
        kind=kind, weights={"click": 1.0, "watch": 1.0}
    )
    prediction = np.array([[1, 0, 1], [np.nan, 0, 1], [1, 0, np.inf]], np.float32)
    score = fuse(spec, prediction, TASKS)
    assert np.isfinite(score).all()
    assert score.argsort().tolist() == [1, 0, 2]
