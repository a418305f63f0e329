import numpy as np
import pyarrow as pa

from recsys_mtl.features.encoders.hashed import HashIds, crossed
from recsys_mtl.features.hashing import seed_of, stable_hash


def test_ids_are_the_hash_modulo_the_buckets():
    values = pa.array([f"v{n}" for n in range(1_000)])
    ids = HashIds(37, seed=5).ids(values)
    np.testing.assert_array_equal(ids, 2 + stable_hash(values, 5) % np.uint64(37))
    assert set(ids.tolist()) == set(range(2, 39))
    assert HashIds(37, seed=5).size == 39


def test_golden_ids_never_change():
    assert HashIds(1_000, seed_of("city")).ids(pa.array(["rome", None])).tolist() == [
        485,
        0,
    ]
    columns = [pa.array(["rome"]), pa.array([3])]
    assert crossed(columns, 1_000, "city_brand").tolist() == [445]


def test_features_do_not_share_their_collisions():
    values = pa.array(range(2_000))
    a, b = (HashIds(100, seed_of(name)).ids(values) for name in ("a", "b"))
    together = a == a[0]
    # Of the 20 or so that collide under one seed, few do under another.
    assert (b[together] == b[0]).sum() < 5


def test_a_cross_is_missing_where_any_part_is():
    ids = crossed([pa.array(["a", None, "a"]), pa.array([1, 1, None])], 9, "x")
    assert ids[0] >= 2
    assert ids[1:].tolist() == [0, 0]


def test_the_order_of_crossed_columns_matters():
    left, right = pa.array(range(500)), pa.array(range(500, 1_000))
    same = crossed([left, right], 1_000, "x") == crossed([right, left], 1_000, "x")
    assert same.mean() < 0.05
    first, second = (crossed([left, right], 1_000, name) for name in "xy")
    assert (first == second).mean() < 0.05
