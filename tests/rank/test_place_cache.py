"""What is remembered of places is what a search would find."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_mtl.features.entity import EntityTable
from recsys_mtl.rank.place_cache import PlaceCache

KEYS = st.lists(st.none() | st.text("ab", max_size=3), max_size=12)


def table(ids):
    return EntityTable.build(pa.table({"id": ids, "n": range(len(ids))}), "id")


@given(ids=st.lists(st.text("ab", min_size=1, max_size=3)), asked=st.lists(KEYS))
@pytest.mark.parametrize("size", [1, 5, 1_000])
def test_the_cache_finds_what_the_table_finds(size, ids, asked):
    entities = table(pa.array(ids, pa.string()))
    cache = PlaceCache(entities, size)
    for keys in asked:
        column = pa.array(keys, pa.string())
        found = cache.find(column)
        np.testing.assert_array_equal(found, entities.find(column))
        assert found.dtype == np.int64
        assert len(cache._places) <= size


def test_long_ids_are_found_and_not_kept():
    ids = ["a" * 256, "b" * 257]
    entities = table(pa.array(ids))
    cache = PlaceCache(entities)
    keys = pa.array([*ids, None, "c" * 70_000])
    for _ in range(2):
        np.testing.assert_array_equal(cache.find(keys), entities.find(keys))
    assert (cache.find(keys) >= 0).tolist() == [True, True, False, False]
    assert sorted(map(len, filter(None, cache._places))) == [256]


def test_what_was_asked_before_is_not_searched_again(monkeypatch):
    entities = table(pa.array(["a", "b"]))
    cache = PlaceCache(entities)
    searched = []
    find = EntityTable.find
    monkeypatch.setattr(
        EntityTable,
        "find",
        lambda self, keys: searched.append(keys.to_pylist()) or find(self, keys),
    )
    for keys in (["a", "x"], ["x", "b", "a"], ["b", "x"]):
        cache.find(pa.array(keys))
    assert searched == [["a", "x"], ["b"]]


def test_whole_numbers_are_left_to_the_table():
    entities = table(pa.array([3, 5]))
    cache = PlaceCache(entities)
    assert cache.find(pa.array([5, 4, None])).tolist() == [1, -1, -1]
    assert not cache._places
