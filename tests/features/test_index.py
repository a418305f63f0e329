import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_mtl.features import index as index_module
from recsys_mtl.features.index import ValueIndex

NEVER_SMALL = -(10**9)
"""As ``_SMALL_SET``: texts are found by their hashes however few there are."""
INTS = st.integers(-(2**63), 2**63 - 1) | st.integers(-20, 20)
TEXTS = st.text(max_size=4)


@pytest.fixture(params=[index_module._SMALL_SET, NEVER_SMALL], ids=["few", "hash"])
def either_way(request, monkeypatch):
    """Both ways of finding text."""
    monkeypatch.setattr(index_module, "_SMALL_SET", request.param)


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


@given(st.lists(TEXTS, unique=True), st.lists(TEXTS | st.none()))
def test_text_is_found_by_its_hash(values, wanted):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "_SMALL_SET", NEVER_SMALL)
        check(values, [*wanted, *values], pa.string())


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("code", [pa.int8(), pa.uint8(), pa.int64(), pa.uint64()])
@pytest.mark.parametrize(
    ("values", "dictionary"),
    [
        (["a", "b", "c"], ["c", "x", "a", None, "a"]),
        ([5, -3, 7], [7, 8, 5, None, 5]),
    ],
)
def test_cells_of_a_dictionary_are_found_as_plain_ones(values, dictionary, code):
    index, _ = ValueIndex.of(pa.array(values))
    codes = pa.array([4, 0, 1, None, 3, 2, 0], code)
    coded = pa.DictionaryArray.from_arrays(codes, pa.array(dictionary))
    plain = index.find(coded.dictionary_decode())
    assert index.find(coded).tolist() == plain.tolist()
    assert plain.tolist().count(-1) == 3


def test_a_dictionary_without_values_has_cells_without():
    index, _ = ValueIndex.of(pa.array(["a"]))
    coded = pa.DictionaryArray.from_arrays(
        pa.nulls(2, pa.int8()), pa.array([], pa.string())
    )
    assert index.find(coded).tolist() == [-1, -1]


@pytest.mark.usefixtures("either_way")
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
    monkeypatch.setattr(index_module, "_SMALL_SET", NEVER_SMALL)
    check(["a", "b", "c"], ["c", "a", "x", "b", None], pa.string())


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_nothing_is_found_among_no_values(kind):
    index, _ = ValueIndex.of(pa.array([], kind))
    assert index.find(pa.nulls(2, kind)).tolist() == [-1, -1]
