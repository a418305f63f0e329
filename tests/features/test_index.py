import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_mtl.features import index as index_module
from recsys_mtl.features.index import ValueIndex

INTS = st.integers(-(2**63), 2**63 - 1) | st.integers(-20, 20)
TEXTS = st.text(max_size=4)


def check(values: list, wanted: list, kind: pa.DataType) -> None:
    index, order = ValueIndex.of(pa.array(values, kind))
    sorted_values = [values[i] for i in order]
    place = {value: i for i, value in enumerate(sorted_values)}
    found = index.find(pa.array(wanted, kind))
    assert found.tolist() == [place.get(value, -1) for value in wanted]


@given(st.lists(INTS, unique=True), st.lists(INTS | st.none()))
def test_whole_numbers_are_found_where_they_are(values, wanted):
    check(values, [*wanted, *values], pa.int64())


@given(st.lists(TEXTS, unique=True), st.lists(TEXTS | st.none()))
def test_text_is_found_where_it_is(values, wanted):
    check(values, [*wanted, *values], pa.string())


def test_many_texts_are_found_as_few_are():
    values = pa.array([f"v{n}" for n in range(500)])
    index, _ = ValueIndex.of(values)
    wanted = pa.array([None if n % 7 == 0 else f"v{n % 600}" for n in range(3_000)])
    one_by_one = [index.find(wanted.slice(i, 1))[0] for i in range(len(wanted))]
    assert index.find(wanted).tolist() == one_by_one


def test_close_numbers_are_found_with_and_without_the_direct_table():
    values = pa.array(np.random.default_rng(0).permutation(1_000)[:600])
    index, _ = ValueIndex.of(values)
    assert index.dense is not None
    searched = ValueIndex(index.values, index.keys)
    wanted = pa.array(range(-5, 1_010))
    np.testing.assert_array_equal(index.find(wanted), searched.find(wanted))


def test_values_whose_hashes_collide_are_told_apart(monkeypatch):
    def same_for_all(array, seed=0):
        return np.full(len(array), 7, np.uint64)

    monkeypatch.setattr(index_module, "stable_hash", same_for_all)
    check(["a", "b", "c"], ["c", "a", "x", "b", None], pa.string())


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_nothing_is_found_among_no_values(kind):
    index, _ = ValueIndex.of(pa.array([], kind))
    assert index.find(pa.nulls(2, kind)).tolist() == [-1, -1]
